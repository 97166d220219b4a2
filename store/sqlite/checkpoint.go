package sqlite

const markCheckpoint = `UPDATE run SET checkpoint_seq = ? WHERE run_id = ? AND lane_epoch = ?`

// markCheckpoints notes the snapshots that records of a batch name in the rows of
// their runs.
func (t *tx) markCheckpoints(epoch int64, rows []logRow) error {
	for i := range rows {
		if s := rows[i].event.Data.Snapshot; s != nil {
			if _, err := t.exec(markCheckpoint, s.Covers, rows[i].run[:], epoch); err != nil {
				return err
			}
		}
	}
	return nil
}
