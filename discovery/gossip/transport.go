package gossip

import "github.com/hashicorp/memberlist"

// Transport carries packets and streams between members; the engine's own one uses UDP and TCP sockets.
type Transport = memberlist.Transport

// Packet is what arrives on a Transport.
type Packet = memberlist.Packet
