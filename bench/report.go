package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"text/tabwriter"
	"time"
)

// figure is one measured number.
type figure struct {
	Name     string  `json:"name"`
	Measured float64 `json:"measured"`
	Unit     string  `json:"unit"`
	Target   string  `json:"target,omitempty"`
	OK       *bool   `json:"ok,omitempty"` // nil: no target
	Gate     bool    `json:"gate,omitempty"`
}

// report collects figures and shows each as soon as it is known.
type report struct{ figures []figure }

func (r *report) add(name string, value float64, unit string) {
	r.put(figure{Name: name, Measured: value, Unit: unit})
}

func (r *report) atMost(name string, value float64, unit string, limit float64) {
	ok := value <= limit
	r.put(figure{Name: name, Measured: value, Unit: unit, Target: fmt.Sprintf("<= %g", limit), OK: &ok})
}

func (r *report) atLeast(name string, value float64, unit string, limit float64) {
	ok := value >= limit
	r.put(figure{Name: name, Measured: value, Unit: unit, Target: fmt.Sprintf(">= %g", limit), OK: &ok})
}

func (r *report) gate(name string, value float64, unit string, limit float64) {
	r.atMost(name, value, unit, limit)
	r.figures[len(r.figures)-1].Gate = true
}

func (r *report) put(f figure) {
	r.figures = append(r.figures, f)
	fmt.Fprintf(os.Stderr, "bench: %s = %s %s\n", f.Name, number(f.Measured), f.Unit)
}

// passed reports whether every gate holds.
func (r *report) passed() bool {
	for _, f := range r.figures {
		if f.Gate && !*f.OK {
			return false
		}
	}
	return true
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func (r *report) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tmeasured\tunit\ttarget\tok")
	for _, f := range r.figures {
		mark := ""
		switch {
		case f.OK == nil:
		case *f.OK:
			mark = "yes"
		default:
			mark = "NO"
		}
		if f.Gate {
			mark += " (gate)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.Name, number(f.Measured), f.Unit, f.Target, mark)
	}
	_ = w.Flush()
}

func (r *report) write(name, server string) error {
	text, err := json.MarshalIndent(map[string]any{
		"at": time.Now().UTC().Format(time.RFC3339), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
		"cpus": runtime.NumCPU(), "postgres": server, "figures": r.figures,
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o600)
}
