// Package story tells what the product promises, in a lab: seven machines are
// started, an app is built, deployed, promoted and scaled under load, and the
// holder of the virtual address, the leader and an agent are lost. Every step
// checks what it has promised and measures how long it took.
//
// The demo tells it to people, the end-to-end test runs the same code with
// bad inputs added, and the bench takes its numbers from the same
// measurements. Whatever a user could do is done by the real command line, in
// a child process, so that the reader can copy it; only watching is done in
// here, because a process per look would be too slow to measure with.
package story
