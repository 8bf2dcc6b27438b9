// Package chaos breaks the machines of a lab on purpose and looks what holds.
package chaos
