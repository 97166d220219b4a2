package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) storageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "storage",
		Short: "See what the store takes, day by day",
		Long: `Shows what the runs of each day take, by the day they were submitted (UTC), how fast the store grows, and which unfinished runs keep days that are past storage.retention_days.

Rows of large tables are estimates.`,
		Example: `
orchestrator storage
orchestrator storage --server http://127.0.0.1:8080 --json`,
		Args: args(0, 0, "no arguments", "orchestrator storage"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.reading(cmd, func(ctx context.Context, cl *client) error {
				r, err := cl.storage.GetStorage(ctx, &api.GetStorageRequest{})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(r)
				}
				c.printStorage(r)
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printStorage(r *api.StorageReport) {
	w := c.painted(c.out)
	kept := "for ever"
	if n := r.GetRetentionDays(); n > 0 {
		kept = fmt.Sprintf("%d days", n)
	}
	table(w, [][]string{
		{dim("in all"), bytesText(int64(r.GetBytes()))},
		{dim("growth"), bytesText(int64(r.GetBytesPerDay())) + " a day"},
		{dim("runs are kept"), kept},
	})
	if len(r.GetDays()) == 0 {
		fmt.Fprintln(w, "there are no runs yet")
	} else {
		fmt.Fprintln(w)
		rows := [][]string{{dim("DAY"), dim("RUNS"), dim("RECORDS"), dim("CONTENT"), dim("LOGS"), dim("IN ALL")}}
		for _, d := range r.GetDays() {
			sizes := map[string]int64{}
			for _, t := range d.GetTables() {
				sizes[t.GetName()] = int64(t.GetBytes())
			}
			rows = append(rows, []string{
				human.Moment(d.GetDay()).UTC().Format(time.DateOnly), strconv.FormatInt(int64(d.GetRuns()), 10),
				bytesText(sizes["step_log"]), bytesText(sizes["blob"]), bytesText(sizes["log_chunk"]), bytesText(int64(d.GetBytes())),
			})
		}
		table(w, rows)
	}
	for _, s := range r.GetStragglers() {
		fmt.Fprintf(w, "\n%s stays for %d unfinished runs:\n", human.Moment(s.GetDay()).UTC().Format(time.DateOnly), s.GetCount())
		for _, id := range s.GetRunIds() {
			fmt.Fprintf(w, "  %s\n", harmlessLine(id))
		}
	}
}
