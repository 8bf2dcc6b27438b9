// Package nfs is about shared volumes: who may use one where. Its directories hold the NFSv4.1
// server that keeps volumes (server, store), the client that mounts them (client, mount), the
// agent's local endpoint (tunnel), and the protocol both speak (proto, rpc, xdr, lockrange).
package nfs
