// Package consul is the Consul HTTP API over the replicated state and the
// catalog: agent, catalog, health, kv, session, txn, event, status and a
// little of operator, with blocking queries and consistency modes. Its judges
// are the official Go client and the tools built on it.
//
// Services of tasks are derived and appear by themselves. What is registered
// through this API is stored in the log, as belonging to the node it was
// registered on.
package consul
