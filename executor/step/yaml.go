package step

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	maxYAMLNodes = 4_000_000 // after aliases are followed
	maxYAMLDepth = 100
)

// decodeYAML reads one YAML document as a JSON value. Scalars without quotes
// resolve as in the core schema of YAML 1.2: dates, yes and 1_000 are texts.
func decodeYAML(text []byte) (any, error) {
	l, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read YAML: %w", err)
	}
	var doc, more yaml.Node
	if err := l.Load(&doc); err != nil {
		return nil, fmt.Errorf("read YAML: %w", err)
	}
	if err := l.Load(&more); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, fmt.Errorf("read YAML: %w", err)
		}
		return nil, errors.New("read YAML: more than one document")
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	w := yamlWalk{}
	return w.value(doc.Content[0], 0)
}

type yamlWalk struct{ nodes int }

func (w *yamlWalk) value(n *yaml.Node, depth int) (any, error) {
	if w.nodes++; w.nodes > maxYAMLNodes {
		return nil, fmt.Errorf("read YAML: more than %d values", maxYAMLNodes)
	}
	if depth > maxYAMLDepth {
		return nil, fmt.Errorf("read YAML: line %d: nested deeper than %d", n.Line, maxYAMLDepth)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return w.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			var err error
			if list[i], err = w.value(c, depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind == yaml.AliasNode {
				k = k.Alias
			}
			if k.Kind != yaml.ScalarNode {
				return nil, fmt.Errorf("read YAML: line %d: a key is not a text", k.Line)
			}
			if k.Value == "<<" && plain(k) {
				return nil, fmt.Errorf("read YAML: line %d: the merge key << is not part of YAML 1.2", k.Line)
			}
			if _, ok := m[k.Value]; ok {
				return nil, fmt.Errorf("read YAML: line %d: the key %q stands there twice", k.Line, k.Value)
			}
			v, err := w.value(n.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			m[k.Value] = v
		}
		return m, nil
	}
	if !plain(n) {
		return n.Value, nil
	}
	return yamlScalar(n)
}

func plain(n *yaml.Node) bool {
	return n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) == 0
}

func yamlScalar(n *yaml.Node) (any, error) {
	s := n.Value
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil, nil
	case "true", "True", "TRUE":
		return true, nil
	case "false", "False", "FALSE":
		return false, nil
	}
	switch strings.ToLower(strings.TrimLeft(s, "+-")) {
	case ".inf", ".nan":
		return nil, fmt.Errorf("read YAML: line %d: %s is not a number that JSON has", n.Line, s)
	}
	if digits := strings.TrimLeft(s, "+-"); len(s)-len(digits) <= 1 && digits != "" && strings.Trim(digits, "0123456789.eE+-") == "" && strings.Trim(digits[:1], "0123456789.") == "" {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return i, nil
		}
		if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsInf(f, 0) {
			return f, nil
		}
	}
	if strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0o") {
		if i, err := strconv.ParseInt(s, 0, 64); err == nil && !strings.Contains(s, "_") {
			return i, nil
		}
	}
	return s, nil
}

// writeYAML gives a value as YAML that any reader takes for the same: texts are
// quoted wherever they could be read as something else.
func writeYAML(v any) ([]byte, error) {
	n := yamlNode(v)
	b, err := yaml.Marshal(n)
	if err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return b, nil
}

func yamlNode(v any) *yaml.Node {
	switch v := v.(type) {
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
		for _, e := range v {
			n.Content = append(n.Content, yamlNode(e))
		}
		return n
	case map[string]any:
		n := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		for _, k := range sortedKeys(v) {
			n.Content = append(n.Content, yamlText(k), yamlNode(v[k]))
		}
		return n
	case string:
		return yamlText(v)
	case nil:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"}
	case bool:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v)}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: string(pipeline.EncodeValue(v))} // a number
}

// yamlText quotes what is not a plain word: older readers take yes, 1_000 and
// 2024-01-02 for other things.
func yamlText(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		n.Style = yaml.DoubleQuotedStyle
	}
	first := byte(0)
	if s != "" {
		first = s[0] | 0x20
	}
	if first < 'a' || first > 'z' {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
