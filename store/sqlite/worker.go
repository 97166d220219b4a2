package sqlite

import (
	"context"
	"database/sql"

	"github.com/orchestrator-project/orchestrator/store"
)

const (
	announce  = `UPDATE lane_lease SET addr = ?2 WHERE replica = ?1 AND addr <> ?2`
	listPeers = `SELECT DISTINCT addr FROM lane_lease WHERE addr <> '' ORDER BY addr`
)

// Announce implements store.Peers.
func (s *Store) Announce(ctx context.Context, replica store.ReplicaID, addr string) error {
	return s.writer.do(ctx, "announce an address", func(t *tx) error {
		_, err := t.exec(announce, text(replica), text(addr))
		return err
	})
}

// Peers implements store.Peers. The lanes of dead processes stay until somebody
// reclaims them.
func (s *Store) Peers(ctx context.Context) ([]string, error) {
	var list []string
	err := s.query(ctx, listPeers, nil, func(r *sql.Rows) error {
		var addr string
		err := r.Scan(&addr)
		list = append(list, addr)
		return err
	})
	return list, storeError("read the addresses of processes", err)
}
