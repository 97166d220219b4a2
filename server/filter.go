package server

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// maxFilter is the length of a filter in bytes.
const maxFilter = 4096

// parseFilter reads the filter language of ListRuns: terms separated by
// spaces, all of which must hold.
//
//	status:failed,running pipeline:nightly label.customer=42 label.team="a b"
func parseFilter(text string) (store.Query, error) {
	var q store.Query
	if len(text) > maxFilter {
		return q, refuse("filter", "invalid_filter", "longer than %d bytes", maxFilter)
	}
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return q, refuse("filter", "invalid_filter", "not text")
	}
	terms, err := splitTerms(text)
	if err != nil {
		return q, err
	}
	for _, t := range terms {
		if err := addTerm(&q, t); err != nil {
			return store.Query{}, err
		}
	}
	return q, nil
}

type term struct {
	key, value string
	sep        byte // ':' or '='; 0: a bare word
}

// splitTerms cuts the filter at spaces outside quotes.
func splitTerms(text string) ([]term, error) {
	var terms []term
	for {
		text = strings.TrimLeftFunc(text, unicode.IsSpace)
		if text == "" {
			return terms, nil
		}
		end := strings.IndexFunc(text, func(r rune) bool { return unicode.IsSpace(r) || r == ':' || r == '=' })
		if end < 0 {
			end = len(text)
		}
		t := term{key: text[:end]}
		text = text[end:]
		if text != "" && (text[0] == ':' || text[0] == '=') {
			t.sep = text[0]
			text = text[1:]
			if strings.HasPrefix(text, `"`) {
				quoted, err := strconv.QuotedPrefix(text)
				if err != nil {
					return nil, refuse("filter", "invalid_filter", "%s: the quotes do not close", t.key)
				}
				if t.value, err = strconv.Unquote(quoted); err != nil {
					return nil, refuse("filter", "invalid_filter", "%s: the quoted text is broken", t.key)
				}
				text = text[len(quoted):]
				if r, _ := utf8.DecodeRuneInString(text); text != "" && !unicode.IsSpace(r) {
					return nil, refuse("filter", "invalid_filter", "%s: a space must follow the quotes", t.key)
				}
			} else {
				end := strings.IndexFunc(text, unicode.IsSpace)
				if end < 0 {
					end = len(text)
				}
				t.value, text = text[:end], text[end:]
			}
		}
		terms = append(terms, t)
	}
}

func addTerm(q *store.Query, t term) error {
	label, isLabel := strings.CutPrefix(t.key, "label.")
	switch {
	case isLabel && t.sep == '=':
		if label == "" {
			return refuse("filter", "invalid_filter", "label.NAME=VALUE needs a name")
		}
		if _, twice := q.Labels[label]; twice {
			return refuse("filter", "invalid_filter", "label.%s stands there twice", label)
		}
		if q.Labels == nil {
			q.Labels = map[string]string{}
		}
		q.Labels[label] = t.value
	case t.key == "status" && t.sep == ':':
		if q.Status != nil {
			return refuse("filter", "invalid_filter", "status stands there twice; list several as in status:failed,running")
		}
		for word := range strings.SplitSeq(t.value, ",") {
			status := pipeline.RunStatus(strings.ToUpper(word))
			if !slices.Contains(pipeline.RunStatuses, status) {
				return refuse("filter", "invalid_filter", "unknown status %q; the statuses are %s", word, statusWords())
			}
			if !slices.Contains(q.Status, status) {
				q.Status = append(q.Status, status)
			}
		}
	case t.key == "pipeline" && t.sep == ':':
		if q.Pipeline != "" {
			return refuse("filter", "invalid_filter", "pipeline stands there twice")
		}
		if t.value == "" {
			return refuse("filter", "invalid_filter", "pipeline: needs a pipeline's id")
		}
		q.Pipeline = t.value
	case (t.key == "parent" || t.key == "forked_from") && t.sep == ':':
		id, ok := pipeline.ParseRunID(t.value)
		if !ok {
			return refuse("filter", "invalid_filter", "%s: needs the id of a run", t.key)
		}
		into := &q.Parent
		if t.key == "forked_from" {
			into = &q.Forked
		}
		if *into != "" {
			return refuse("filter", "invalid_filter", "%s stands there twice", t.key)
		}
		*into = id
	default:
		word := t.key
		if t.sep != 0 {
			word += string(t.sep) + t.value
		}
		return refuse("filter", "invalid_filter", "unknown term %q; the terms are status:A,B pipeline:ID parent:RUN forked_from:RUN label.NAME=VALUE", word)
	}
	return nil
}

func statusWords() string {
	words := make([]string, len(pipeline.RunStatuses))
	for i, s := range pipeline.RunStatuses {
		words[i] = strings.ToLower(string(s))
	}
	return strings.Join(words, ", ")
}

// pageSize is the number of entries of a page.
func (l *Limits) pageSize(asked int32) (int, error) {
	switch {
	case asked == 0:
		return l.PageDefault, nil
	case asked < 0:
		return 0, refuse("page_size", "invalid_page_size", "must not be negative")
	case int(asked) > l.PageMost:
		return 0, refuse("page_size", "invalid_page_size", "at most %d", l.PageMost)
	}
	return int(asked), nil
}

// A page token is the place where the next page begins, bound by a checksum to
// the list that it was given for. It is opaque, but no secret: a forged one
// gives nothing that could not be asked for.

func pageToken(list, place string) string {
	return base64.RawURLEncoding.EncodeToString(append(tokenSum(list, place), place...))
}

func readPageToken(list, token string) (place string, err error) {
	if token == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err == nil && len(b) > tokenSumBytes {
		place = string(b[tokenSumBytes:])
		if string(tokenSum(list, place)) == string(b[:tokenSumBytes]) {
			return place, nil
		}
	}
	return "", refuse("page_token", "invalid_page_token", "not a token of this list; begin without one")
}

const tokenSumBytes = 6

func tokenSum(list, place string) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "page 1 %q %q", list, place))
	return sum[:tokenSumBytes]
}

// readPageNumber is readPageToken of a list whose places are numbers.
func readPageNumber(list, token string) (int, error) {
	place, err := readPageToken(list, token)
	if err != nil || place == "" {
		return 0, err
	}
	n, err := strconv.ParseInt(place, 10, 32)
	if err != nil || n < 0 {
		return 0, refuse("page_token", "invalid_page_token", "not a token of this list; begin without one")
	}
	return int(n), nil
}
