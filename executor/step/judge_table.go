package step

import (
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

var (
	textType  = pipeline.Type{Kind: "string"}
	anyType   = pipeline.Type{Kind: "any"}
	shareType = pipeline.Type{Kind: "number", Min: new(0.0), Max: new(1.0)}
)

// judgements is every action that a model answers, with what it is told. The
// parameters that pipelines fill by <AUTO> are of any type: a text, a number and
// a list say the same to a model.
var judgements = []judgement{
	{
		name: "analyze",
		doc: `Asks a model to analyse its input and gives the analysis as a text.

    - id: topic_analysis
      action: analyze
      parameters: {input: "{{ topic }}", analysis_type: comparative, output_format: bullet_points}`,
		params: []pipeline.Property{
			needed("input", "what is analysed: a text or any value"),
			given("analysis_type", "any", "the kind of analysis, as in comparative"),
			given("output_format", "any", "the form of the answer, as in bullet_points, narrative or structured"),
		},
		returns: textType,
		prompt: `Analyse the input. Follow analysis_type and output_format where they are given.
Keep to what the input says or what is common knowledge; name what is uncertain. Answer with the analysis alone.`,
	},
	{
		name: "plan",
		doc: `Asks a model for a plan and gives it as a text: numbered steps.

    - id: research_planning
      action: plan
      parameters: {topic_analysis: "{{ topic_analysis.output }}", research_depth: medium}`,
		params: []pipeline.Property{
			given("goal", "any", "what the plan is to reach"),
			given("topic_analysis", "any", "what is known of the topic"),
			given("research_depth", "any", "how thorough, as in shallow, medium or deep"),
			given("sources", "any", "number and kinds of sources to use"),
			given("constraints", "any", "what the plan must respect"),
		},
		oneOf:   []string{"goal", "topic_analysis"},
		returns: textType,
		prompt: `Write a plan: numbered steps, each with what is done and what it gives. Fit it to the depth, sources and constraints
where they are given. Answer with the plan alone.`,
	},
	{
		name: "search",
		doc: `Asks a model what it knows to answer queries, and gives results as a list.

    - id: web_search
      action: search
      parameters: {queries: ["history of tea", "tea trade"], num_results: 5}

No network is searched: the model answers from what it has learnt, and url is null where it does not know an address for certain. To fetch pages, use http steps.`,
		params: []pipeline.Property{
			needed("queries", "a list of queries, or one text"),
			given("num_results", "any", "how many results for each query"),
		},
		returns: gives(listOf("results", "what was found", gives(
			given("query", "string", "the query that it answers"),
			given("title", "string", "what it is"),
			pipeline.Property{Name: "url", Doc: "where it stands, or null", Type: pipeline.Type{Kind: "string", Optional: true}},
			given("snippet", "string", "what it says on the query"),
		))),
		prompt: `Give what you know on each query as search results: title, url, and a snippet with the substance.
Give an url only where you are certain that it exists; otherwise null. Do not invent sources. Respect num_results where it is given.`,
	},
	{
		name: "synthesize",
		doc: `Asks a model to bring sources together in one text.

    - id: content_synthesis
      action: synthesize
      parameters: {sources: "{{ web_search.results }}", style: business, length: two pages}`,
		params: []pipeline.Property{
			needed("sources", "texts, or any values"),
			given("style", "any", "as in academic, business or general"),
			given("length", "any", "how long"),
		},
		returns: textType,
		prompt: `Bring the sources together in one coherent text. Say only what they support; where they disagree, say so.
Follow style and length where they are given. Answer with the text alone.`,
	},
	{
		name: "generate_report",
		doc: `Asks a model to write a report from given content, and gives it as a text.

    - id: report
      action: generate_report
      parameters: {content: "{{ content_synthesis.output }}", format: markdown, sections: [Summary, Findings]}`,
		params: []pipeline.Property{
			needed("content", "what the report is about: a text or any value"),
			given("title", "any", "its title"),
			given("format", "any", "as in markdown; default: markdown"),
			given("sections", "any", "a list of sections, or a text that names them"),
		},
		returns: textType,
		prompt: `Write a report from the content, in the format that is given, or in Markdown. Use the title and the sections where they
are given. Add no facts of your own. Answer with the report alone.`,
	},
	{
		name: "synthesize_review",
		doc: `Asks a model to write a code review from the findings of other steps, and gives it as a text.

    - id: review
      action: synthesize_review
      parameters:
        security_results: "{{ security_scan.findings }}"
        style_results: "{{ style_check.violations }}"
        complexity_results: "{{ complexity.metrics }}"
        review_tone: constructive`,
		params: []pipeline.Property{
			given("security_results", "any", "findings of security_analysis"),
			given("style_results", "any", "violations of style_analysis"),
			given("complexity_results", "any", "metrics of analyze_complexity"),
			given("review_tone", "any", "as in professional, constructive or educational"),
			given("priority_order", "any", "what comes first"),
		},
		oneOf:   []string{"security_results", "style_results", "complexity_results"},
		returns: textType,
		prompt: `Write a code review from these results. Name each problem with its file and line, say why it matters and how to mend it;
group what is alike, the gravest first unless priority_order says otherwise. Claim nothing that the results do not show.
Answer with the review alone, in Markdown.`,
	},
	{
		name: "select_models",
		doc: `Chooses models for a task and gives their names as selected_models.

    - id: model_selection
      action: select_models
      parameters: {task_type: sentiment classification, num_models: 2, candidates: [small, medium, large]}

With candidates, only those can be chosen; where num_models is at least their number, all are taken and no model is asked.`,
		params: []pipeline.Property{
			needed("task_type", "what the models are for"),
			given("num_models", "any", "how many, as in 3 or 3-7"),
			given("diversity_strategy", "any", "how they should differ"),
			given("candidates", "any", "the models to choose from: names, or maps with a name"),
		},
		returns: gives(listOf("selected_models", "their names", textType), given("reason", "string", "why these")),
		prompt: `Choose models for the task: as many as num_models says, from the candidates where they are given, different from each
other in the way that diversity_strategy describes. Give their names as they would be called, and the reason.`,
		without: allCandidates,
		narrow:  onlyCandidates,
	},
	{
		name: "aggregate_predictions",
		doc: `Combines the predictions of several models into one for each row.

    - id: ensemble
      action: aggregate_predictions
      parameters: {predictions: "{{ parallel_predictions.results }}", aggregation_method: voting}

predictions is what batch_predict gives (a list of maps with row, model, prediction, confidence), a list with a list of predictions for each model, a map from model to its list, or a list of the predictions for one row.

aggregation_method is a text in which one of these is found: voting or majority (the most frequent prediction; of equals the one with more confidence, then the first), weighted (the same, or the mean, by weights or else by confidence), averaging or mean, median. Without it numbers are averaged and anything else is voted on. Each of these is computed. stacking, or any other method, asks a model.

confidence_calculation is, in the same way, share (of the votes), mean, minimum or maximum (of the given confidences); by default share where there are votes, else mean. confidence is null where it cannot be known.`,
		params: []pipeline.Property{
			needed("predictions", "what the models predicted"),
			given("aggregation_method", "any", "voting, weighted, averaging, median or stacking"),
			given("confidence_calculation", "any", "share, mean, minimum or maximum"),
			given("weights", "map", "the weight of each model, by its name"),
		},
		returns: gives(
			listOf("final_predictions", "one for each row", pipeline.Type{Kind: "map", Additional: true, Properties: []pipeline.Property{
				{Name: "row", Required: true, Doc: "which row", Type: anyType},
				{Name: "prediction", Required: true, Doc: "the combined prediction", Type: anyType},
				{Name: "confidence", Required: true, Doc: "from 0 to 1, or null", Type: pipeline.Type{Kind: "number", Optional: true, Min: new(0.0), Max: new(1.0)}},
			}}),
			given("method", "string", "how they were combined"),
			given("confidence_method", "string", "where confidence comes from"),
		),
		prompt: `Combine the predictions of the models into one for each row, by the aggregation_method that is given, and say how sure the
combination is, by confidence_calculation where it is given. method and confidence_method tell in a few words what you did.`,
		without: combine,
	},
	{
		name: "validate_results",
		doc: `Says whether predictions can be relied on.

    - id: validation
      action: validate_results
      parameters: {ensemble_predictions: "{{ ensemble.final_predictions }}", validation_threshold: 0.8, fallback_strategy: ask a person}

Where every prediction has a confidence and validation_threshold holds one number (0.8, 80%, "at least 0.8"), this is computed: a prediction is accepted with at least that confidence, and valid says that all are. Otherwise a model is asked. fallback is the fallback_strategy where valid is false, else null.`,
		params: []pipeline.Property{
			needed("ensemble_predictions", "the predictions, each a map with confidence"),
			given("validation_threshold", "any", "the least confidence, from 0 to 1 or in percent; or a text for the model"),
			given("fallback_strategy", "any", "what is to be done if they are not valid"),
		},
		returns: gives(
			given("valid", "boolean", "all predictions are accepted"),
			listOf("accepted", "the predictions that can be relied on", anyType),
			listOf("rejected", "the others", anyType),
			listOf("issues", "what is wrong, as texts", textType),
			pipeline.Property{Name: "fallback", Doc: "what is to be done now, or null", Type: pipeline.Type{Kind: "string", Optional: true}},
		),
		prompt: `Decide for each prediction whether it can be relied on, by validation_threshold where it is given. List the accepted and the
rejected predictions as they are given, and what is wrong as issues. valid is true only where none is rejected. fallback is null where valid
is true, else what fallback_strategy says is to be done.`,
		without: passThreshold,
	},
}

// candidateLimit reads how many models may be chosen; ok is false where the
// text is not one whole number.
func candidateLimit(v any) (n int, ok bool) {
	f, ok := oneNumber(v)
	if !ok || f < 1 || f > 1000 || f != float64(int(f)) {
		return 0, false
	}
	return int(f), true
}

func allCandidates(params map[string]any) (any, bool, error) {
	if params["candidates"] == nil {
		return nil, false, nil
	}
	names, err := modelNames("candidates", params["candidates"])
	if err != nil {
		return nil, false, err
	}
	n, ok := candidateLimit(params["num_models"])
	if !ok || n < len(names) {
		return nil, false, nil
	}
	return map[string]any{
		"selected_models": anyList(names),
		"reason":          fmt.Sprintf("all %d candidates: num_models is %d", len(names), n),
	}, true, nil
}

func onlyCandidates(params, schema map[string]any) error {
	props, _ := schema["properties"].(map[string]any)
	list, _ := props["selected_models"].(map[string]any)
	list["minItems"], list["uniqueItems"] = int64(1), true
	if n, ok := candidateLimit(params["num_models"]); ok {
		list["maxItems"] = int64(n)
	}
	if params["candidates"] == nil {
		return nil
	}
	names, err := modelNames("candidates", params["candidates"])
	if err != nil {
		return err
	}
	list["items"] = map[string]any{"enum": anyList(names)}
	return nil
}
