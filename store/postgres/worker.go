package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/store"
)

const (
	announce  = `UPDATE lane_lease SET addr = $2 WHERE replica = $1 AND addr <> $2`
	listPeers = `SELECT DISTINCT addr FROM lane_lease WHERE addr <> '' AND expires_at > clock_timestamp() ORDER BY addr`
)

// Announce implements store.Peers.
func (s *Store) Announce(ctx context.Context, replica store.ReplicaID, addr string) error {
	return s.do(ctx, "announce an address", func(c *pgxpool.Conn) error {
		_, err := c.Exec(ctx, announce, string(replica), store.Clean(addr))
		return err
	})
}

// Peers implements store.Peers.
func (s *Store) Peers(ctx context.Context) ([]string, error) {
	var list []string
	err := s.do(ctx, "read the addresses of replicas", func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, listPeers)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return list, err
}
