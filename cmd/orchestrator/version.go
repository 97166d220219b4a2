package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the build.
var version = "dev"

// build is what is known of this binary.
type buildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Time     string `json:"time"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readBuild() buildInfo {
	b := buildInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; b.Version == "dev" && v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (c *cli) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version and how this binary was built",
		Args:  args(0, 0, "no arguments", "orchestrator version"),
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			if c.asJSON {
				text, err := json.Marshal(b)
				if err != nil {
					return fmt.Errorf("write JSON: %w", err)
				}
				return c.printRaw(text)
			}
			fmt.Fprintf(c.out, "orchestrator %s\n", b.Version)
			rows := [][]string{{"go", b.Go}, {"platform", b.Platform}}
			if b.Commit != "" {
				commit := b.Commit
				if b.Modified {
					commit += " with changes"
				}
				rows = append(rows, []string{"commit", commit}, []string{"time", b.Time})
			}
			table(c.out, rows)
			return nil
		},
	}
	c.jsonFlag(cmd, "print one JSON document")
	return cmd
}
