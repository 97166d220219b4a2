package store

import "context"

// Peers are the replicas that share a store, as far as workers must know them.
type Peers interface {
	// Announce says at which address workers reach a replica, for as long as it
	// holds the lanes that it holds now.
	Announce(ctx context.Context, replica ReplicaID, addr string) error
	// Peers lists the addresses that live replicas have announced, sorted.
	Peers(ctx context.Context) ([]string, error)
}
