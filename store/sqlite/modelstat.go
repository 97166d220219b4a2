package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	addModelStat = `INSERT INTO model_stat (day, pipeline, model, calls, failures, unpriced, reward, seconds, input_tokens, output_tokens, cached_tokens, cost_usd)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
		ON CONFLICT (day, pipeline, model) DO UPDATE SET
			calls = calls + ?4, failures = failures + ?5, unpriced = unpriced + ?6, reward = reward + ?7, seconds = seconds + ?8,
			input_tokens = input_tokens + ?9, output_tokens = output_tokens + ?10, cached_tokens = cached_tokens + ?11, cost_usd = cost_usd + ?12`
	sumModelStats = `SELECT '', '', model, sum(calls), sum(failures), sum(unpriced), sum(reward), sum(seconds),
			sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(cost_usd)
		FROM model_stat WHERE day >= ?1 GROUP BY model ORDER BY model`
	listModelUsage = `SELECT day, pipeline, model, calls, failures, unpriced, reward, seconds, input_tokens, output_tokens, cached_tokens, cost_usd
		FROM model_stat
		WHERE day >= ?1 AND (?2 = '' OR day <= ?2) AND (?3 = '' OR pipeline = ?3) AND (?4 = '' OR model = ?4)
			AND (?5 = '' OR day < ?5 OR day = ?5 AND (pipeline, model) > (?6, ?7))
		ORDER BY day DESC, pipeline, model LIMIT ?8`
)

// AddModelStats implements store.ModelStats.
func (s *Store) AddModelStats(ctx context.Context, list []pipeline.ModelStat) error {
	return s.writer.do(ctx, "add to the statistics of models", func(t *tx) error {
		for i := range list {
			m := &list[i]
			if _, err := t.exec(addModelStat, text(m.Day), text(m.Pipeline), text(m.Model), m.Calls, m.Failures, m.Unpriced, m.Reward, m.Seconds,
				m.InputTokens, m.OutputTokens, m.CachedTokens, m.CostUSD); err != nil {
				return err
			}
		}
		return nil
	})
}

// ModelStats implements store.ModelStats.
func (s *Store) ModelStats(ctx context.Context, since time.Time) ([]pipeline.ModelStat, error) {
	return s.modelStats(ctx, sumModelStats, store.UsageDay(since))
}

// ModelUsage implements store.ModelStats.
func (s *Store) ModelUsage(ctx context.Context, q store.UsageQuery) ([]pipeline.ModelStat, error) {
	return s.modelStats(ctx, listModelUsage, text(q.Since), text(q.Until), text(q.Pipeline), text(q.Model),
		text(q.After.Day), text(q.After.Pipeline), text(q.After.Model), store.PageSize(q.Limit))
}

func (s *Store) modelStats(ctx context.Context, query string, args ...any) ([]pipeline.ModelStat, error) {
	var list []pipeline.ModelStat
	err := s.query(ctx, query, args, func(r *sql.Rows) error {
		var m pipeline.ModelStat
		err := r.Scan(&m.Day, &m.Pipeline, &m.Model, &m.Calls, &m.Failures, &m.Unpriced, &m.Reward, &m.Seconds,
			&m.InputTokens, &m.OutputTokens, &m.CachedTokens, &m.CostUSD)
		list = append(list, m)
		return err
	})
	return list, storeError("read the statistics of models", err)
}
