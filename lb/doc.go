// Package lb is the HTTP ingress: it routes by host and path to the live
// instances of services, and it measures what happened to each release.
//
// A [Table] is an immutable picture of routes and backends, derived from the
// replicated state by the caller. [Proxy.Swap] puts a new one in force at once;
// requests in flight keep the target they have. A [Proxy] is an http.Handler;
// [Server] gives it listeners with limits, TLS and graceful stop.
//
// All exported methods may be called from any goroutine.
package lb
