package model

import "time"

// BuiltIn is the registry of a server without a models.yaml: well-known models of
// the three services.
func BuiltIn() *Registry {
	return &Registry{Entries: builtIn, Policies: policies(), BuiltIn: true}
}

func policies() map[string]SelectionPolicy {
	return map[string]SelectionPolicy{DefaultPolicy: {Strategy: StrategyUCB}}
}

var (
	truth     = true
	languages = []string{"en", "es", "fr", "de", "zh", "ja", "ko"}
)

// builtIn have prices only where the service's own documentation of the model names
// them: those of Anthropic as platform.claude.com/docs/en/models said in November
// 2026, from the day of the model's release; for reads and writes of the cache with
// the factors 0.1 and 1.25, of which the rows of these models were not seen. What the others cost is not
// known here; models.yaml says it.
var builtIn = []*Entry{
	wellKnown("claude-sonnet-4-5", ProviderAnthropic, "high", 200_000, 64_000,
		[]Price{{From: day(2025, 9, 29), Input: 3, Output: 15, Cached: new(0.30), CacheWrite: new(3.75)}},
		"general", "reasoning", "analysis", "code_generation", "code_review", "creative_writing", "summarization"),
	wellKnown("claude-haiku-4-5", ProviderAnthropic, "medium", 200_000, 64_000,
		[]Price{{From: day(2025, 10, 15), Input: 1, Output: 5, Cached: new(0.10), CacheWrite: new(1.25)}},
		"general", "analysis", "code_generation", "summarization"),
	wellKnown("gpt-4.1", ProviderOpenAI, "high", 1_047_576, 32_768, nil,
		"general", "reasoning", "analysis", "code_generation", "code_review", "creative_writing", "summarization"),
	wellKnown("gpt-4.1-mini", ProviderOpenAI, "medium", 1_047_576, 32_768, nil,
		"general", "analysis", "code_generation", "summarization"),
	wellKnown("gpt-4o", ProviderOpenAI, "high", 128_000, 16_384, nil,
		"general", "reasoning", "analysis", "code_generation", "creative_writing", "summarization"),
	wellKnown("gpt-4o-mini", ProviderOpenAI, "medium", 128_000, 16_384, nil,
		"general", "code_generation", "summarization"),
	wellKnown("gemini-2.5-flash", ProviderGoogle, "medium", 1_048_576, 65_536, nil,
		"general", "analysis", "code_generation", "summarization"),
}

func wellKnown(name, provider, expertise string, window, output int64, prices []Price, tasks ...string) *Entry {
	return &Entry{
		Name: name, Provider: provider, Prices: prices,
		Capabilities: Capabilities{
			Tasks: tasks, ContextWindow: window, MaxOutput: output, Tools: &truth, Structured: &truth, Streaming: &truth,
			Languages: languages, Expertise: expertise,
		},
	}
}

func day(year int, month time.Month, d int) time.Time {
	return time.Date(year, month, d, 0, 0, 0, 0, time.UTC)
}
