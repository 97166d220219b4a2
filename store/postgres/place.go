package postgres

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// placing is which queues new runs of a batch belong to, and where in their
// lines those stand that wait for their start. A run that begins at once, in
// the default queue under its pipeline's key, needs none of it.
type placing struct {
	run  [7]array
	line [4]array
	keys map[fairLine]int32 // how many runs of the batch stand there
}

// fairLine is a fair key within a priority of a queue.
type fairLine struct {
	queue    string
	priority int32
	key      string
}

var (
	placeOIDs = [7]uint32{oidDate, oidUUID, oidText, oidText, oidText, oidInt4, oidInt4}
	lineOIDs  = [4]uint32{oidText, oidInt4, oidText, oidInt4}
)

func (p *placing) reset(each func(*array, uint32)) {
	for i := range p.run {
		each(&p.run[i], placeOIDs[i])
	}
	for i := range p.line {
		each(&p.line[i], lineOIDs[i])
	}
	clear(p.keys)
}

func (p *placing) put(r *pipeline.Run, id [16]byte) {
	waits := r.Status == pipeline.RunQueued
	if !waits && r.Queue == "" && r.FairKey == "" && r.Concurrency.Key == "" {
		return
	}
	queue, key := store.PlaceOf(r)
	c := &p.run
	c[0].putDay(store.DayOf(id))
	c[1].putBytes(id[:])
	c[2].putText(queue)
	c[3].putText(key)
	if r.Concurrency.Key == "" {
		c[4].putNull()
	} else {
		c[4].putText(store.Clean(r.Concurrency.Key))
	}
	c[5].putInt4(r.Concurrency.Max)
	n := int32(0)
	if waits {
		at := fairLine{queue, r.Priority, key}
		n = p.keys[at] + 1
		if p.keys == nil {
			p.keys = make(map[fairLine]int32)
		}
		p.keys[at] = n
	}
	c[6].putInt4(n)
}

// close writes the lines in one order for all lanes: they lock them.
func (p *placing) close() {
	if len(p.keys) == 0 {
		return
	}
	lines := slices.SortedFunc(maps.Keys(p.keys), func(a, b fairLine) int {
		return cmp.Or(cmp.Compare(a.queue, b.queue), cmp.Compare(a.priority, b.priority), cmp.Compare(a.key, b.key))
	})
	for _, l := range lines {
		p.line[0].putText(l.queue)
		p.line[1].putInt4(l.priority)
		p.line[2].putText(l.key)
		p.line[3].putInt4(p.keys[l])
	}
}

var (
	// growKeys moves the pass of each key by its runs of the batch. A key that
	// was idle begins where the clock of its line is.
	growKeys = `WITH u AS (SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::integer[]) AS u (queue, priority, key, n)),
		made AS (INSERT INTO queue (name) SELECT DISTINCT queue FROM u ORDER BY 1 ON CONFLICT DO NOTHING),
		wound AS (INSERT INTO fair_clock (queue, priority, pass) SELECT DISTINCT queue, priority, 0 FROM u ORDER BY 1, 2 ON CONFLICT DO NOTHING)
		INSERT INTO fair_key AS f (queue, priority, key, pass, grown, stride)
		SELECT u.queue, u.priority, u.key, coalesce(c.pass, 0) + u.n * s.stride, u.n * s.stride, s.stride
		FROM u CROSS JOIN LATERAL (SELECT ` + fairUnit + ` / least(greatest(coalesce(
				(SELECT (q.weights ->> u.key)::bigint FROM queue q WHERE q.name = u.queue), 1), 1), 1000) AS stride) s
			LEFT JOIN fair_clock c ON c.queue = u.queue AND c.priority = u.priority
		ON CONFLICT (queue, priority, key) DO UPDATE SET pass = greatest(f.pass, EXCLUDED.pass - EXCLUDED.grown) + EXCLUDED.grown,
			grown = EXCLUDED.grown, stride = EXCLUDED.stride`
	fairUnit = strconv.Itoa(store.FairUnit) + `::bigint`
)

// placeRuns describes new runs, and puts those that wait for their start into
// the line. A run that has its place keeps it: the batch was in doubt.
const placeRuns = `WITH placed AS (
		UPDATE run SET queue = u.queue, fair_key = u.fair_key, concurrency = u.concurrency, concurrency_max = u.most
		FROM unnest($1::date[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::integer[], $7::integer[])
			AS u (day, run_id, queue, fair_key, concurrency, most, n)
		WHERE run.day = u.day AND run.run_id = u.run_id AND run.queue IS NULL
		RETURNING run.day, run.run_id, run.status, run.priority, run.pipeline, run.queue, run.fair_key, run.concurrency, u.most, u.n)
	INSERT INTO run_queue (priority, day, run_id, queue, pass, pipeline, fair_key, concurrency, concurrency_max)
	SELECT p.priority, p.day, p.run_id, p.queue, f.pass - f.grown + p.n * f.stride, p.pipeline, p.fair_key, p.concurrency, p.most
	FROM placed p JOIN fair_key f ON f.queue = p.queue AND f.priority = p.priority AND f.key = p.fair_key
	WHERE p.status = 'QUEUED' ON CONFLICT DO NOTHING`
