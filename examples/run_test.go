package examples_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// example is what running a file must give. Inputs, answers and a script that
// stand beside it are used.
type example struct {
	inputs map[string]any
	act    func(*testing.T, *house, pipeline.RunID) // what people and other programs do meanwhile
	of     string                                   // an expression over the outputs, whose value is looked at; empty: all of them
	want   string                                   // that value as JSON
	files  map[string]string                        // what files of the workspace must contain
}

var examples = map[string]example{
	"hello.yaml": {want: `{"greeting":"Hello, world!"}`},
	"inputs.yaml": {want: `{"result":{"last":"nothing","limit":"1m30s","line":"A title: 3 x 0.5, shallow in examples","noted":false,` +
		`"owner":"Ada is 36","product":1.5,"strict":"lenient","tags":"new+small"}}`},
	"commands.yaml": {want: `{"answer":42,"code":0,"count":0,"program":"O'Brien & sons|a  b","second":"two","shell":"O'BRIEN & SONS"}`},
	"for.yaml": {want: `{"described":"1. alpha has 5 letters; 2. beta has 4 letters; 3. gamma has 5 letters",` +
		`"loud":["ALPHA","BETA","GAMMA"],"passes":3}`},
	"for-nested.yaml":   {want: `{"products":[[10,20],[20,40],[30,60]]}`},
	"for-parallel.yaml": {want: `{"lines":[9,23],"missing":1}`},
	"while.yaml":        {want: `{"finished":true,"highest":9232,"steps":111}`},
	"if.yaml":           {want: `{"advice":"Go out."}`},
	"condition.yaml":    {want: `{"text":"not released, skipped"}`},
	"retry.yaml":        {want: `{"flaky":3,"reported":2}`},
	"on-failure.yaml":   {want: `{"report":{"fallback":"nothing came","optional":"skipped","tolerated":"failed with exit code 3"}}`},
	"finally.yaml":      {want: `{"said":"worked"}`, files: map[string]string{"work/journal.txt": "work: completed\n"}},
	"state.yaml":        {want: `{"taken":[3,9,4,1],"total":17}`},
	"order.yaml":        {want: `{"report":"9 words\nbrown"}`},
	"triggers.yaml":     {of: "{{ said }}", want: `"Looking at by hand, number 0"`},
	"timeout.yaml":      {want: `{"status":"failed","why":"timeout"}`},
	"effect.yaml":       {want: `{"keyed":true,"paid":"paid","year":` + time.Now().UTC().Format("2006") + `}`},
	"secrets.yaml":      {want: `{"others":"another step sees ''","use":"the token is [secret API_TOKEN]"}`},
	"filesystem.yaml": {
		want:  `{"files":["notes/data.json","notes/today.md"],"text":"# Today\n- wrote 8 bytes\n"}`,
		files: map[string]string{"notes/data.json": "{\n  \"done\": true,\n  \"sha\": \""},
	},
	"transform.yaml": {want: `{"index":"cat, dog, ran, saw, the","lines":2}`},
	"data-analysis.yaml": { // means and deviations as published
		want: `{"deviations":[0.17366,0.46991,0.55189],"means":[1.462,4.26,5.552],"outliers":10,"report":"out/data-analysis.md","rows":150}`,
		files: map[string]string{"out/data-analysis.md": "| setosa | 50 | 1.462 | 0.174 | 1.0 | 1.5 | 1.7 | 1.9 |\n" +
			"| versicolor | 50 | 4.260 | 0.470 | 3.0 | 4.35 | 4.8 | 5.1 |\n"},
	},
	"formats.yaml": {
		want: `{"cleaned":1,"filed":"archive/2024/priced.parquet","first":[{"customer":"Ada","day":"2024-05-01","order":1,"price":2.5,"product":"P1","quantity":2},` +
			`{"customer":"Bob","day":"2024-05-01","order":2,"price":10.0,"product":"P2","quantity":1}],"matched":4,"rows":5,"violations":["/4/price"]}`,
	},
	"statistics.yaml": {
		want: `{"charts":["box","box","scatter"],"columns":["petal_length","petal_width","sepal_length","sepal_width","species=setosa",` +
			`"species=versicolor","species=virginica"],"duplicates":1,"rows":149,"strongest":"petal_length differs by species: its mean is 5.552 for ` +
			`virginica and 1.462 for setosa; one-way analysis of variance F = 1180.16, p \u003c 0.001"}`,
		files: map[string]string{"out/irises.md": "| difference | petal_length, species | 0.941372 | 2.85678e-91 |\n"},
	},
	"execute.yaml": {want: `{"squares":"1 4 9","tried":"not yet","unit":"m2"}`},
	"code-checks.yaml": {
		want: `{"functions":9,"grave":["code-injection","hard-coded-secret","shell-injection","unsafe-deserialization"],"hardest":16,"style":10}`,
	},
	"judge.yaml": {want: `{"predictions":["yes","no"],"sure":false,"then":"ask a person","word":"one"}`},

	"skill.yaml":           {want: `{"long_words":4,"word":"CIRCUMSTANCES"}`},
	"agent-tools.yaml":     {want: `{"first":"o-w-l-s","words":4}`},
	"agent-skills.yaml":    {want: `{"note":"We used owls. The draft had 4 words."}`},
	"agent-approve.yaml":   {act: say("approve", nil, "ann"), want: `{"letter":"Done: paid 20 to Bo"}`},
	"agent.yaml":           {want: `{"longest":"pomegranate"}`},
	"call.yaml":            {want: `{"greetings":["Hello, Ada!","Hello, Grace! Hello, Grace!"]}`},
	"call-inline.yaml":     {want: `{"fahrenheit":[-40.0,32.0,212.0],"feel":"freezing, freezing, mild"}`},
	"call-detach.yaml":     {want: `{"begun":true}`},
	"lib/greeting.yaml":    {inputs: map[string]any{"who": "you", "times": int64(2)}, want: `{"text":"Hello, you! Hello, you!"}`},
	"set.yaml":             {want: `{"gross":100.0,"text":"100.00, of which 20.00 tax"}`},
	"wait-timer.yaml":      {want: `{"open":"completed","rested":true}`},
	"wait-signal.yaml":     {act: signal("lunch", map[string]any{"dish": "soup"}), want: `{"eaten":"soup"}`},
	"wait-files.yaml":      {want: `{"files":["one.task","two.task"]}`},
	"ask.yaml":             {act: say("answer", "blue", "ann"), want: `{"paint":"two pots of blue"}`},
	"ask-form.yaml":        {act: say("answer", map[string]any{"guests": []any{"Bo", "Cy"}, "hour": int64(19)}, "ann"), want: `{"letters":["Dear Bo, we begin at 19.","Dear Cy, we begin at 19."]}`},
	"approve.yaml":         {act: say("approve", nil, "ann"), want: `{"done":"released 1.4.0"}`},
	"while-collect.yaml":   {want: `{"completed":false,"numbers":[1,2,3,5,8,13,21,34,55,89]}`},
	"repeat.yaml":          {want: `{"dice":{"gave_up":true,"last":4},"passes":4,"root":1.414214}`},
	"queue.yaml":           {want: `{"factors":["3 5","3 7","29","3 11","37","3 17"],"first_prime":29,"tried":3}`},
	"match.yaml":           {inputs: map[string]any{"animal": "dog"}, want: `{"says":"woof"}`},
	"union.yaml":           {want: `{"first_issue":"too short","verdict":"sent back: too short, no point"}`},
	"parallel.yaml":        {want: `{"meal":"rye with gouda, then ripe pear and ripe plum"}`},
	"compete.yaml":         {want: `{"text":"8a10b2c1d","winner":"run_length"}`, files: map[string]string{"out/contests.jsonl": `"winner":"run_length"`}},
	"compete-judge.yaml":   {want: `{"value":"3.141593","winner":"zu_chongzhi"}`},
	"jumps.yaml":           {want: `{"text":"ordered 2, then sent"}`},
	"jump-on-failure.yaml": {want: `{"text":"read from the mirror, as nearby failed"}`},
	"jump-back.yaml":       {want: `{"song":"la la la!"}`},
	"on-error.yaml":        {want: `{"plan":"try again tomorrow","price":0,"tries":3,"use":"skipped"}`},
	"cache.yaml":           {want: `{"computed":2,"squares":[9,16,9,9]}`},
	"contract.yaml":        {want: `{"area":"13.5 m2","violations":"the result is not as promised: colour must be a whole number, not the text \"blue\"; it must have size","why":"contract"}`},
	"artifacts.yaml":       {want: `{"poem":"Roses are red\nviolets are blue","versions":[1,2]}`},
	"prompt-files.yaml":    {want: `{"busiest":"Ada"}`},
	"auto.yaml":            {want: `{"baked":"3 layers of cherry","cake":{"candles":7,"layers":3,"taste":"cherry","text":"With congratulations for all"}}`},
	"concurrency.yaml":     {want: `{"deployed":"to staging"}`},
	"settings.yaml":        {want: `{"attempts":2,"broken":"failed","where":"settings"}`},
	"vars.yaml":            {want: `{"sign":"night-owls: up to 5 people"}`},
	"context.yaml":         {want: `{"last":20,"said":"Good evening, Mr Fogg"}`},
	"inferred-inputs.yaml": {inputs: map[string]any{"count": int64(3), "animal": "owl"}, want: `{"text":"3 owls"}`},
	"unknown-actions.yaml": {want: `{"talk":"Ahoy, matey!"}`},
	"own-actions.yaml":     {want: `{"labels":["bug","idea"],"why":"A colour is a matter of taste."}`},
	"expressions.yaml": {
		want: `{"values":{"first":"Ad.","found":1815,"json":"{\"age\": 36, \"city\": \"London\", \"name\": \"Ada\"}","list":"1. ADA\n2. SOFIA\n\n",` +
			`"mean":43.3,"names":["Sofia","Emmy","Ada"],"older":"Emmy and Sofia","safe":"none","slug":"ada-emmy","total":130}}`,
	},
}

// noted are the warnings that examples show on purpose.
var noted = map[string][]string{
	"context.yaml":         {"W0203"},
	"inferred-inputs.yaml": {"W0201"},
}

func TestExamples(t *testing.T) {
	shared := open(t, "")
	copyTree(t, ".", filepath.Join(shared.dir, "examples"))
	for file, want := range examples {
		t.Run(file, func(t *testing.T) {
			h := shared
			if script := companion(file, "script"); exists(script) {
				h = open(t, script)
				copyTree(t, ".", filepath.Join(h.dir, "examples"))
			}
			h.see(t, file, want)
		})
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// see runs an example to its end, and looks at what comes of it.
func (h *house) see(t *testing.T, file string, want example) *pipeline.Run {
	t.Helper()
	id := h.submit(t, file, want.inputs)
	if want.act != nil {
		want.act(t, h, id)
	}
	run := h.end(t, id)
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("%s: %v", run.Status, run.Error)
	}
	var value any = run.Outputs
	if want.of != "" {
		tmpl, err := expr.Compile(want.of)
		if err != nil {
			t.Fatal(err)
		}
		if value, err = tmpl.Eval(&expr.Env{Scope: expr.MapScope(run.Outputs)}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want.want, string(pipeline.EncodeValue(value))); diff != "" {
		t.Errorf("outputs: %s", diff)
	}
	for name, text := range want.files {
		h.contains(t, name, text)
	}
	return run
}

func (h *house) contains(t *testing.T, name, text string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil || !strings.Contains(string(b), text) {
		t.Errorf("%s lacks %q (%v):\n%s", name, text, err, b)
	}
}

// alone are the examples that have a test of their own.
var alone = []string{"agent-report.yaml", "code-report.yaml", "health-sweep.yaml", "secret-headers.yaml"}

// elsewhere is the folder of examples whose actions a worker brings.
const elsewhere = "workers"

func TestEveryExampleIsRun(t *testing.T) {
	for _, file := range all(t) {
		_, listed := examples[file]
		_, seed := seeds[strings.TrimPrefix(file, "seeds/")]
		if !listed && !seed && !slices.Contains(alone, file) {
			t.Errorf("%s is not run by a test", file)
		}
	}
}

func TestEveryExampleIsValid(t *testing.T) {
	h := open(t, "")
	c := jsonschema.NewCompiler()
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(spec.Schema(h.Catalog()))))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.AddResource("orchestrator.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("orchestrator.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all(t) {
		t.Run(file, func(t *testing.T) {
			_, notes, _ := h.compile(t, file)
			for _, n := range notes.List {
				if n.Severity != pipeline.SeverityInfo && !slices.Contains(noted[file], n.Code) && !strings.HasPrefix(file, "seeds/") {
					t.Errorf("%s:%d:%d: %s: %s", n.File, n.Line, n.Column, n.Code, n.Message)
				}
			}
			if !strings.HasPrefix(string(read(t, file)), "# ") && !strings.HasPrefix(file, "seeds/") {
				t.Error("it does not begin with what it shows")
			}
			var document any
			if err := yaml.Unmarshal(read(t, file), &document); err != nil {
				t.Skipf("unquoted tags make it no YAML to editors: %v", err)
			}
			if err := schema.Validate(document); err != nil {
				t.Error(err)
			}
		})
	}
}
