package postgres

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// batchWriter turns batches into parameters; its buffers serve all of a lane's.
type batchWriter struct {
	epoch                     [8]byte
	keys, keyDigests, keyRuns array
	run                       [26]array
	log, keyedLog             [10]array
	fin                       [14]array
	park                      [14]array
	ask                       [9]array
	ended, consume, withdraw  array
	yield                     [2]array
	place                     placing
	mark                      [3]array // of checkpoint records
	blob                      [4]array
	blobs                     []store.Blob
	days                      []int64 // of the batch's runs, each once
	holds                     bool    // a run that ends has a queue or a key of its own, and so perhaps a slot
	body                      []byte
}

var (
	runOIDs = [26]uint32{
		oidDate, oidUUID, oidText, oidText, oidText, oidUUID, oidUUID, oidText, oidText, oidBytea, oidInt8, oidInt4,
		oidText, oidBytea, oidBytea, oidText, oidTimestamptz, oidTimestamptz, oidTimestamptz, oidInt4, oidInt4, oidFloat8, oidInt4, oidText, oidInt4,
		oidInt4,
	}
	logOIDs = [10]uint32{oidDate, oidUUID, oidInt4, oidInt4, oidInt8, oidTimestamptz, oidText, oidText, oidBytea, oidBytea}
	finOIDs = [14]uint32{
		oidDate, oidUUID, oidText, oidText, oidBytea, oidBytea, oidTimestamptz, oidTimestamptz, oidInt4, oidInt4,
		oidFloat8, oidInt4, oidInt4, oidBool,
	}
	parkOIDs = [14]uint32{
		oidDate, oidUUID, oidText, oidText, oidBytea, oidBytea, oidTimestamptz, oidTimestamptz, oidInt4, oidInt4,
		oidFloat8, oidInt4, oidInt4, oidTimestamptz,
	}
	askOIDs = [9]uint32{oidUUID, oidUUID, oidText, oidText, oidBytea, oidBytea, oidTimestamptz, oidTimestamptz, oidTimestamptz}
)

// maxKept bounds the buffers that are kept for the next batch.
const maxKept = 4 << 20

func (w *batchWriter) reset(epoch int64) {
	each := func(a *array, oid uint32) {
		if cap(a.buf) > maxKept {
			a.buf = nil
		}
		a.reset(oid)
	}
	each(&w.keys, oidText)
	each(&w.keyDigests, oidText)
	each(&w.keyRuns, oidUUID)
	for i := range w.run {
		each(&w.run[i], runOIDs[i])
	}
	for i := range w.log {
		each(&w.log[i], logOIDs[i])
		each(&w.keyedLog[i], logOIDs[i])
	}
	for i := range w.fin {
		each(&w.fin[i], finOIDs[i])
		each(&w.park[i], parkOIDs[i])
	}
	for i := range w.ask {
		each(&w.ask[i], askOIDs[i])
	}
	each(&w.withdraw, oidUUID)
	each(&w.ended, oidUUID)
	each(&w.consume, oidText)
	each(&w.yield[0], oidDate)
	each(&w.yield[1], oidUUID)
	each(&w.mark[0], oidDate)
	each(&w.mark[1], oidUUID)
	each(&w.mark[2], oidInt4)
	w.place.reset(each)
	w.blobs, w.days, w.holds = w.blobs[:0], w.days[:0], false
	putInt8(w.epoch[:], epoch)
}

func (w *batchWriter) params(columns []array) [][]byte {
	list := make([][]byte, 0, len(columns)+1)
	for i := range columns {
		list = append(list, columns[i].bytes())
	}
	return list
}

func (w *batchWriter) encode(epoch int64, b *store.Batch) error {
	w.reset(epoch)
	keyed, err := w.takeKeys(b.Create)
	if err != nil {
		return err
	}
	for i := range b.Create {
		c := &b.Create[i]
		id, err := runKey(c.Run.ID)
		if err != nil {
			return err
		}
		if c.IdempotencyKey != "" && keyed[id] == "" {
			continue // another of this batch has its key
		}
		w.putRun(epoch, c.Run, id, keyed[id])
		w.place.put(c.Run, id)
		w.putEvents(id, c.Events, keyed[id] != "")
	}
	for i := range b.Append {
		a := &b.Append[i]
		id, err := runKey(a.Run)
		if err != nil {
			return err
		}
		_, maybe := keyed[id]
		w.putEvents(id, a.Events, maybe)
	}
	last := make(map[pipeline.RunID]int, len(b.Finish))
	for i := range b.Finish {
		last[b.Finish[i].Run.ID] = i
	}
	for i := range b.Finish {
		r := b.Finish[i].Run
		if last[r.ID] != i {
			continue // the last one counts
		}
		id, err := runKey(r.ID)
		if err != nil {
			return err
		}
		w.putRow(&w.fin, r, r.Status, id)
		w.fin[13].putBool(r.Status.Final())
		if r.Status.Final() {
			w.ended.putBytes(id[:])
			w.holds = w.holds || r.Queue != "" || r.Concurrency.Key != ""
		}
	}
	for i := range b.Park {
		p := &b.Park[i]
		id, err := runKey(p.Run.ID)
		if err != nil {
			return err
		}
		status := pipeline.RunWaiting
		if p.Run.Status == pipeline.RunPaused {
			status = pipeline.RunPaused
		}
		w.putRow(&w.park, p.Run, status, id)
		w.park[13].putTimeOrNull(p.Wake)
	}
	w.place.close()
	if err := w.putApprovals(b); err != nil {
		return err
	}
	for _, run := range b.Yield {
		id, err := runKey(run)
		if err != nil {
			return err
		}
		w.day(id)
		w.yield[0].putDay(store.DayOf(id))
		w.yield[1].putBytes(id[:])
	}
	for _, m := range b.Consume {
		w.consume.putText(store.Clean(string(m)))
	}
	slices.SortFunc(w.blobs, func(a, b store.Blob) int {
		if a.Day != b.Day {
			return int(a.Day - b.Day)
		}
		return bytes.Compare(a.SHA[:], b.SHA[:])
	})
	w.blobs = slices.CompactFunc(w.blobs, func(a, b store.Blob) bool { return a.Day == b.Day && a.SHA == b.SHA })
	return nil
}

// takeKeys writes the keys of the batch in order, each for the first run that
// asks for it. The map holds every run with a key; those that lost theirs to
// another run of the batch have none.
func (w *batchWriter) takeKeys(list []store.Create) (map[[16]byte]string, error) {
	type taker struct {
		key string
		run [16]byte
		c   *store.Create
	}
	var takers []taker
	var keyed map[[16]byte]string
	for i := range list {
		c := &list[i]
		if c.IdempotencyKey == "" {
			continue
		}
		id, err := runKey(c.Run.ID)
		if err != nil {
			return nil, err
		}
		if keyed == nil {
			keyed = make(map[[16]byte]string)
		}
		keyed[id] = ""
		takers = append(takers, taker{key: store.Clean(c.IdempotencyKey), run: id, c: c})
	}
	slices.SortStableFunc(takers, func(a, b taker) int { return strings.Compare(a.key, b.key) })
	for i, t := range takers {
		if i > 0 && takers[i-1].key == t.key {
			continue
		}
		keyed[t.run] = t.key
		w.keys.putText(t.key)
		w.keyDigests.putText(store.Clean(string(t.c.RequestDigest)))
		w.keyRuns.putBytes(t.run[:])
	}
	return keyed, nil
}

func (w *batchWriter) result(b *store.Batch, owners map[string]keyOwner) store.Result {
	if len(b.Create) == 0 {
		return store.Result{}
	}
	res := store.Result{Creates: make([]store.CreateResult, len(b.Create))}
	for i := range b.Create {
		c := &b.Create[i]
		if c.IdempotencyKey == "" {
			continue
		}
		owner, ok := owners[store.Clean(c.IdempotencyKey)]
		if id, _ := store.RunKey(c.Run.ID); ok && owner.run != id {
			res.Creates[i] = store.CreateResult{Existing: store.RunIDOf(owner.run[:]), Mismatch: owner.digest != store.Clean(string(c.RequestDigest))}
		}
	}
	return res
}

func (w *batchWriter) day(id [16]byte) {
	if d := store.DayOf(id); !slices.Contains(w.days, d) {
		w.days = append(w.days, d)
	}
}

func (w *batchWriter) putRun(epoch int64, r *pipeline.Run, id [16]byte, key string) {
	w.day(id)
	c := &w.run
	optional := func(a *array, id pipeline.RunID) {
		if k, ok := store.RunKey(id); ok {
			a.putBytes(k[:])
		} else {
			a.putNull()
		}
	}
	c[0].putDay(store.DayOf(id))
	c[1].putBytes(id[:])
	c[2].putText(store.Clean(r.Pipeline))
	c[3].putText(store.Clean(r.Version))
	c[4].putText(store.Clean(string(r.PlanDigest)))
	optional(&c[5], r.ParentRun)
	optional(&c[6], r.ForkedFrom)
	c[7].putText(store.Clean(string(r.Status)))
	c[8].putText(store.Clean(r.Reason))
	c[9].putBytes(store.EncodeFailure(r.Error))
	if r.Status == pipeline.RunQueued || r.Status.Final() {
		c[10].putNull()
	} else {
		c[10].putInt8(epoch)
	}
	c[11].putInt4(r.Priority)
	c[12].putBytes(store.EncodeLabels(r.Labels))
	c[13].putBytes(store.EncodeMap(r.Inputs))
	c[14].putBytes(store.EncodeMap(r.Outputs))
	c[15].putText(store.Clean(r.Workspace))
	c[16].putTime(r.CreatedAt)
	c[17].putTimeOrNull(r.StartedAt)
	c[18].putTimeOrNull(r.FinishedAt)
	c[19].putInt4(r.Usage.InputTokens)
	c[20].putInt4(r.Usage.OutputTokens)
	c[21].putFloat8(store.Finite(r.Usage.CostUSD))
	c[22].putInt4(r.Usage.Steps)
	if key == "" {
		c[23].putNull()
	} else {
		c[23].putText(key)
	}
	c[24].putInt4(r.ForkSeq)
	c[25].putInt4(r.Usage.Unpriced)
}

func (w *batchWriter) putEvents(id [16]byte, events []pipeline.Event, maybe bool) {
	c := &w.log
	if maybe {
		c = &w.keyedLog
	}
	if len(events) > 0 {
		w.day(id)
	}
	day := store.DayOf(id)
	for i := range events {
		e := &events[i]
		w.body = pipeline.AppendData(w.body[:0], &e.Data)
		var digest int64
		if len(w.body) > store.BlobMin {
			b := store.NewBlob(day, w.body)
			w.blobs = append(w.blobs, b)
			digest = store.EventDigest(e, b.SHA[:])
			c[8].putNull()
			c[9].putBytes(b.SHA[:])
			if cap(w.body) > maxKept {
				w.body = nil
			}
		} else {
			digest = store.EventDigest(e, w.body)
			c[8].putBytes(w.body)
			c[9].putNull()
		}
		c[0].putDay(day)
		c[1].putBytes(id[:])
		c[2].putInt4(e.Seq)
		c[3].putInt4(e.Attempt)
		c[4].putInt8(digest)
		c[5].putTime(e.At)
		c[6].putText(store.Clean(string(e.Type)))
		if s := e.Data.Snapshot; s != nil {
			w.mark[0].putDay(day)
			w.mark[1].putBytes(id[:])
			w.mark[2].putInt4(s.Covers)
		}
		c[7].putText(store.Clean(string(e.Path)))
	}
}

// putRow writes what a Finish or a Park changes in the run's row, but the last column.
func (w *batchWriter) putRow(c *[14]array, r *pipeline.Run, status pipeline.RunStatus, id [16]byte) {
	w.day(id)
	c[0].putDay(store.DayOf(id))
	c[1].putBytes(id[:])
	c[2].putText(store.Clean(string(status)))
	c[3].putText(store.Clean(r.Reason))
	c[4].putBytes(store.EncodeFailure(r.Error))
	c[5].putBytes(store.EncodeMap(r.Outputs))
	c[6].putTimeOrNull(r.StartedAt)
	c[7].putTimeOrNull(r.FinishedAt)
	c[8].putInt4(r.Usage.InputTokens)
	c[9].putInt4(r.Usage.OutputTokens)
	c[10].putFloat8(store.Finite(r.Usage.CostUSD))
	c[11].putInt4(r.Usage.Steps)
	c[12].putInt4(r.Usage.Unpriced)
}

func (w *batchWriter) putApprovals(b *store.Batch) error {
	c := &w.ask
	for _, a := range b.Ask {
		id, err := store.ApprovalKey(a.ID)
		if err != nil {
			return err
		}
		run, err := runKey(a.Run)
		if err != nil {
			return err
		}
		request, err := store.EncodeRequest(a)
		if err != nil {
			return err
		}
		c[0].putBytes(id[:])
		c[1].putBytes(run[:])
		c[2].putText(store.Clean(a.Pipeline))
		c[3].putText(string(a.Status))
		c[4].putBytes(request)
		c[5].putBytes(store.EncodeDecisions(a.Decisions))
		c[6].putTimeOrNull(a.Deadline)
		c[7].putTime(a.CreatedAt)
		c[8].putTimeOrNull(a.DecidedAt)
	}
	for _, x := range b.Withdraw {
		id, err := store.ApprovalKey(x)
		if err != nil {
			return err
		}
		w.withdraw.putBytes(id[:])
	}
	return nil
}

func runKey(id pipeline.RunID) ([16]byte, error) {
	k, ok := store.RunKey(id)
	if !ok {
		return k, runNotFound(id)
	}
	return k, nil
}

func runNotFound(id pipeline.RunID) error {
	return &pipeline.Error{Kind: pipeline.NotFound, Reason: "run_not_found", Text: fmt.Sprintf("there is no run %s", id)}
}
