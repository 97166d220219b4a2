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

// ModelState is a model of a server's registry, as it stands now.
type ModelState struct {
	ModelSpec
	Provider     string
	ID           string // the provider's own name for it
	Available    bool
	Reason       string // why it is not
	Breaker      string // closed, half-open, open
	BaseModel    string // of a quantized version
	Quantization string
	Fallback     []string
	Price        *ModelPrice // nil: not known
	Stat         ModelStat   // of the last 30 days
}

// ModelPrice is what a model costs from a day on, in USD for a million tokens.
type ModelPrice struct {
	From                              string // as in 2026-01-31; empty: ever since
	Input, Output, Cached, CacheWrite float64
}

// Models are a server's registry, as it stands now.
type Models struct {
	List     []ModelState // in the order of the registry
	BuiltIn  bool         // no file names them
	Scripted bool         // scripted answers stand in for all of them
}

// ModelTest is what came of asking a model.
type ModelTest struct {
	Text    string
	Model   string // what answered
	Seconds float64
	Usage   Usage
	Priced  bool // what it has cost is known
}
