package worker

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// minSecret is the length below which a value is too common to blot out.
const minSecret = 4

// blotter keeps secrets, and their usual encodings, out of what is shown.
type blotter struct {
	forms []string // longest first
	marks map[string]string

	mu   sync.Mutex
	ends map[string]string // by stream: what may be the beginning of a secret
}

func newBlotter(secrets map[string]string) *blotter {
	b := &blotter{marks: map[string]string{}, ends: map[string]string{}}
	for name, value := range secrets {
		if len(value) < minSecret {
			continue
		}
		raw := []byte(value)
		inJSON, _ := json.Marshal(value) // a string
		for _, s := range []string{
			value, string(inJSON[1 : len(inJSON)-1]), url.QueryEscape(value), url.PathEscape(value),
			base64.StdEncoding.EncodeToString(raw), base64.URLEncoding.EncodeToString(raw),
			base64.RawStdEncoding.EncodeToString(raw), base64.RawURLEncoding.EncodeToString(raw),
		} {
			if b.marks[s] == "" {
				b.marks[s] = "[secret " + name + "]"
				b.forms = append(b.forms, s)
			}
		}
	}
	slices.SortFunc(b.forms, func(x, y string) int { return len(y) - len(x) })
	return b
}

// text blots out what stands in s.
func (b *blotter) text(s string) string {
	for _, f := range b.forms {
		s = strings.ReplaceAll(s, f, b.marks[f])
	}
	return s
}

// pass blots out what stands in a stream, and keeps back an end that may be the
// beginning of a secret.
func (b *blotter) pass(stream, s string) string {
	if len(b.forms) == 0 {
		return s
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s = b.text(b.ends[stream] + s)
	keep := 0
	for _, f := range b.forms {
		for n := min(len(f)-1, len(s)); n > keep; n-- {
			if strings.HasSuffix(s, f[:n]) {
				keep = n
				break
			}
		}
	}
	b.ends[stream] = s[len(s)-keep:]
	return s[:len(s)-keep]
}

// rest is what was kept back.
func (b *blotter) rest() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	rest := map[string]string{}
	for stream, s := range b.ends {
		if s != "" {
			rest[stream] = s
		}
	}
	clear(b.ends)
	return rest
}
