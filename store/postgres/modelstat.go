package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	// In the order of the key, so that batches of two replicas cannot block each other.
	addModelStats = `INSERT INTO model_stat AS m (day, pipeline, model, calls, failures, unpriced, reward, seconds,
			input_tokens, output_tokens, cached_tokens, cost_usd)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::float8[], $8::float8[],
			$9::bigint[], $10::bigint[], $11::bigint[], $12::float8[]) AS n(day, pipeline, model, calls, failures, unpriced, reward, seconds, i, o, c, usd)
		ORDER BY day COLLATE "C", pipeline COLLATE "C", model COLLATE "C"
		ON CONFLICT (day, pipeline, model) DO UPDATE SET
			calls = m.calls + excluded.calls, failures = m.failures + excluded.failures, unpriced = m.unpriced + excluded.unpriced,
			reward = m.reward + excluded.reward, seconds = m.seconds + excluded.seconds, input_tokens = m.input_tokens + excluded.input_tokens,
			output_tokens = m.output_tokens + excluded.output_tokens, cached_tokens = m.cached_tokens + excluded.cached_tokens,
			cost_usd = m.cost_usd + excluded.cost_usd`
	sumModelStats = `SELECT '', '', model, sum(calls)::bigint, sum(failures)::bigint, sum(unpriced)::bigint, sum(reward), sum(seconds),
			sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cached_tokens)::bigint, sum(cost_usd)
		FROM model_stat WHERE day >= $1 GROUP BY model ORDER BY model`
	listModelUsage = `SELECT day, pipeline, model, calls, failures, unpriced, reward, seconds, input_tokens, output_tokens, cached_tokens, cost_usd
		FROM model_stat
		WHERE day >= $1 AND ($2 = '' OR day <= $2) AND ($3 = '' OR pipeline = $3) AND ($4 = '' OR model = $4)
			AND ($5 = '' OR day < $5 OR day = $5 AND (pipeline, model) > ($6, $7))
		ORDER BY day DESC, pipeline, model LIMIT $8`
)

// AddModelStats implements store.ModelStats.
func (s *Store) AddModelStats(ctx context.Context, list []pipeline.ModelStat) error {
	var days, pipelines, models []string
	var calls, failures, unpriced, in, out, cached []int64
	var reward, seconds, cost []float64
	for i := range list {
		m := &list[i]
		days, pipelines, models = append(days, store.Clean(m.Day)), append(pipelines, store.Clean(m.Pipeline)), append(models, store.Clean(m.Model))
		calls, failures, unpriced = append(calls, m.Calls), append(failures, m.Failures), append(unpriced, m.Unpriced)
		reward, seconds, cost = append(reward, m.Reward), append(seconds, m.Seconds), append(cost, m.CostUSD)
		in, out, cached = append(in, m.InputTokens), append(out, m.OutputTokens), append(cached, m.CachedTokens)
	}
	return s.do(ctx, "add to the statistics of models", func(c *pgxpool.Conn) error {
		_, err := c.Exec(ctx, addModelStats, days, pipelines, models, calls, failures, unpriced, reward, seconds, in, out, cached, cost)
		return err
	})
}

// ModelStats implements store.ModelStats.
func (s *Store) ModelStats(ctx context.Context, since time.Time) ([]pipeline.ModelStat, error) {
	return s.modelStats(ctx, sumModelStats, store.UsageDay(since))
}

// ModelUsage implements store.ModelStats.
func (s *Store) ModelUsage(ctx context.Context, q store.UsageQuery) ([]pipeline.ModelStat, error) {
	return s.modelStats(ctx, listModelUsage, store.Clean(q.Since), store.Clean(q.Until), store.Clean(q.Pipeline), store.Clean(q.Model),
		store.Clean(q.After.Day), store.Clean(q.After.Pipeline), store.Clean(q.After.Model), store.PageSize(q.Limit))
}

func (s *Store) modelStats(ctx context.Context, query string, args ...any) ([]pipeline.ModelStat, error) {
	var list []pipeline.ModelStat
	err := s.do(ctx, "read the statistics of models", func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (m pipeline.ModelStat, err error) {
			err = row.Scan(&m.Day, &m.Pipeline, &m.Model, &m.Calls, &m.Failures, &m.Unpriced, &m.Reward, &m.Seconds,
				&m.InputTokens, &m.OutputTokens, &m.CachedTokens, &m.CostUSD)
			return m, err
		})
		return err
	})
	return list, err
}
