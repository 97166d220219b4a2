package pipeline

// ModelStat is what calls of a model have come to: on a day, in a pipeline, or
// summed up, where Day and Pipeline are empty.
type ModelStat struct {
	Day          string // as in 2026-01-31, UTC
	Pipeline     string // its id; empty: of no pipeline that is known
	Model        string // provider/name
	Calls        int64
	Failures     int64   // of Calls
	Reward       float64 // sum of what the calls were worth, each from 0 to 1
	Seconds      float64 // sum of those that have not failed
	InputTokens  int64
	OutputTokens int64
	CachedTokens int64 // of InputTokens
	CostUSD      float64
	Unpriced     int64 // of Calls: what they have cost is not known
}

// Add adds the counts of another one.
func (s *ModelStat) Add(o *ModelStat) {
	s.Calls += o.Calls
	s.Failures += o.Failures
	s.Reward += o.Reward
	s.Seconds += o.Seconds
	s.InputTokens += o.InputTokens
	s.OutputTokens += o.OutputTokens
	s.CachedTokens += o.CachedTokens
	s.CostUSD += o.CostUSD
	s.Unpriced += o.Unpriced
}
