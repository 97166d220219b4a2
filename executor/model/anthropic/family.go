package anthropic

import (
	"regexp"
	"strconv"

	sdk "github.com/anthropics/anthropic-sdk-go"
)

// family is what a model can do, as its name tells. Models that are not told by
// their names get what every model of the API can do.
type family struct {
	native   bool  // holds answers to a schema
	thinks   bool  // takes a budget of thinking
	adaptive bool  // chooses its thinking by an effort
	longest  int64 // answer when the request bounds none, in tokens
}

// version finds the version in names like claude-3-5-haiku-20241022,
// claude-opus-4-1-20250805, claude-sonnet-4@20250514 and
// eu.anthropic.claude-haiku-4.5.
var version = regexp.MustCompile(`claude-(?:([a-z]+)-)?(\d{1,2})(?:[-.](\d{1,2}))?(?:[-@:.]|$)`)

func familyOf(name string) family {
	m := version.FindStringSubmatch(name)
	if m == nil {
		return family{longest: 4096, thinks: true}
	}
	major, _ := strconv.Atoi(m[2]) // the expression lets nothing but digits in
	minor, _ := strconv.Atoi(m[3])
	v := major*100 + minor
	f := family{
		native:   v >= 405 || v >= 401 && m[1] == "opus",
		thinks:   v >= 307,
		adaptive: v >= 406,
		longest:  4096,
	}
	switch {
	case v >= 400:
		f.longest = 32_000
	case v >= 305:
		f.longest = 8192
	}
	return f
}

// budgets are the tokens of thinking that an effort is worth to models that take
// a budget.
var budgets = map[string]int64{"low": 2048, "medium": 8192, "high": 16_384}

// think sets how much the model thinks, and how long its answer may be. Models
// take no thinking together with a call that they are forced to make, none with a
// temperature, and a budget of it only where their last message begins with it.
func think(p *sdk.MessageNewParams, effort string, f family) {
	bounded := p.MaxTokens > 0
	if !bounded {
		p.MaxTokens = f.longest
	}
	forced := p.ToolChoice.OfAny != nil || p.ToolChoice.OfTool != nil
	switch {
	case effort == "" || forced:
		return
	case effort == "none":
		if f.adaptive {
			off := sdk.NewThinkingConfigDisabledParam()
			p.Thinking.OfDisabled = &off
		}
		return
	case f.adaptive:
		p.OutputConfig.Effort = sdk.OutputConfigEffort(effort)
		p.Thinking.OfAdaptive = &sdk.ThinkingConfigAdaptiveParam{Display: sdk.ThinkingConfigAdaptiveDisplaySummarized}
	case f.thinks && budgets[effort] > 0 && (bounded || budgets[effort] < p.MaxTokens) && thinkable(p.Messages):
		p.Thinking = sdk.ThinkingConfigParamOfEnabled(budgets[effort])
		if bounded { // the bound is that of the answer; the service's is that of both
			p.MaxTokens += budgets[effort]
		}
	default:
		return
	}
	p.Temperature = sdk.MessageNewParams{}.Temperature
}

// thinkable reports whether the model's last message, where it waits for results,
// begins with its thinking.
func thinkable(messages []sdk.MessageParam) bool {
	if len(messages) < 2 {
		return true
	}
	last := messages[len(messages)-2].Content
	if first := last[0]; first.OfThinking != nil || first.OfRedactedThinking != nil {
		return true
	}
	for _, b := range last {
		if b.OfToolUse != nil {
			return false
		}
	}
	return true
}
