package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func (c *cli) workersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "workers",
		Short: "See the workers of a server, and drain them",
		Long: `Workers are processes that carry out steps for a server, on their own machines: orchestrator worker, or programs of yours. A server knows those that are connected to it.

A step with worker: [gpu] that the server's own labels do not cover goes only to a worker that has all its labels and room for it; until there is one, its run waits.`,
		Example: `
orchestrator workers list --server http://127.0.0.1:8080
orchestrator workers drain gpu-1`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.workersListCommand(), c.workersGetCommand(), c.workersDrainCommand())
	return cmd
}

// onServer is reading for what only a server knows.
func (c *cli) onServer(cmd *cobra.Command, do func(context.Context, *client) error) error {
	if !c.remote() {
		return usage("name it with --server http://127.0.0.1:8080 or ORCHESTRATOR_SERVER", "workers are connected to a server, and none is named")
	}
	return c.reading(cmd, do)
}

func (c *cli) workersListCommand() *cobra.Command {
	var labels []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the workers that are connected",
		Example: `
orchestrator workers list
orchestrator workers list --labels gpu --json`,
		Args: args(0, 0, "no arguments", "orchestrator workers list"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.onServer(cmd, func(ctx context.Context, cl *client) error {
				resp, err := cl.workers.ListWorkers(ctx, &api.ListWorkersRequest{Labels: labels})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(resp)
				}
				c.printWorkers(resp.GetWorkers(), len(labels) > 0)
				return nil
			})
		},
	}
	cmd.Flags().StringSliceVar(&labels, "labels", nil, "only those that have all of these")
	c.jsonFlag(cmd, "print the answer of the API")
	return cmd
}

func (c *cli) printWorkers(list []*api.Worker, filtered bool) {
	w := c.painted(c.out)
	if len(list) == 0 {
		if filtered {
			fmt.Fprintln(w, "no connected worker has these labels")
			return
		}
		fmt.Fprintln(w, "no worker is connected")
		look(w, [2]string{"orchestrator worker --server " + c.server + " --labels LABEL", "start one"})
		return
	}
	now := time.Now()
	rows := [][]string{{dim("WORKER"), dim("STATUS"), dim("LABELS"), dim("BUSY"), dim("VERSION"), dim("HEARD")}}
	for _, k := range list {
		rows = append(rows, []string{
			k.GetName(), workerStatus(k), cut(strings.Join(k.GetLabels(), ","), 40), fmt.Sprintf("%d/%d", k.GetBusy(), k.GetSlots()),
			k.GetVersion(), human.Ago(human.Moment(k.GetHeardAt()), now),
		})
	}
	table(w, rows)
}

func workerStatus(k *api.Worker) string {
	switch k.GetStatus() {
	case "connected":
		return painted("COMPLETED", icon("COMPLETED")+" connected")
	case "draining":
		return painted("WAITING", icon("WAITING")+" draining")
	}
	return painted("FAILED", icon("FAILED")+" "+k.GetStatus())
}

func (c *cli) workersGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get WORKER",
		Short:   "Show a worker, and what it carries out",
		Example: "orchestrator workers get gpu-1",
		Args:    args(1, 1, "the name of a worker", "orchestrator workers get WORKER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.onServer(cmd, func(ctx context.Context, cl *client) error {
				k, err := cl.workers.GetWorker(ctx, &api.GetWorkerRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(k)
				}
				c.printWorker(k)
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the worker as one JSON document")
	return cmd
}

func (c *cli) printWorker(k *api.Worker) {
	w := c.painted(c.out)
	now := time.Now()
	rows := [][]string{
		{dim("worker"), k.GetName() + dim("  "+k.GetVersion())},
		{dim("status"), workerStatus(k) + dim(", connected "+human.Ago(human.Moment(k.GetConnectedAt()), now)+", heard "+human.Ago(human.Moment(k.GetHeardAt()), now))},
		{dim("labels"), orNone(strings.Join(k.GetLabels(), ", "))},
		{dim("capacity"), fmt.Sprintf("%d of %d slots taken", k.GetBusy(), k.GetSlots())},
	}
	if r, used := k.GetResources(), k.GetUsed(); r != nil {
		part := func(name string, used, has float64) string {
			if has == 0 {
				return ""
			}
			return " " + strconv.FormatFloat(used, 'f', -1, 64) + "/" + strconv.FormatFloat(has, 'f', -1, 64) + " " + name
		}
		rows = append(rows, []string{dim("resources"), strings.TrimSpace(part("cpu", used.GetCpu(), r.GetCpu()) +
			part("GB", used.GetMemoryGb(), r.GetMemoryGb()) + part("gpu", used.GetGpu(), r.GetGpu()))})
	}
	for _, a := range k.GetActions() {
		rows = append(rows, []string{dim("brings"), a.GetName() + dim("  "+cut(plainText(a.GetDoc()), 60))})
	}
	if len(k.GetRuns()) > 0 {
		rows = append(rows, []string{dim("runs"), cut(strings.Join(k.GetRuns(), ", "), 100)})
	}
	table(w, rows)
	printAttempts(w, k.GetAttempts(), now)
}

func printAttempts(w io.Writer, list []*api.WorkerAttempt, now time.Time) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows := [][]string{{dim("RUN"), dim("STEP"), dim("ATTEMPT"), dim("SINCE")}}
	for _, a := range list {
		rows = append(rows, []string{a.GetRunId(), a.GetPath(), strconv.Itoa(int(a.GetAttempt())), human.Ago(human.Moment(a.GetSince()), now)})
	}
	table(w, rows)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (c *cli) workersDrainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drain WORKER",
		Short: "Let a worker take nothing new",
		Long:  "The worker lets what it has under way end within its own grace, gives the rest back, and leaves.",
		Example: `
orchestrator workers drain gpu-1`,
		Args: args(1, 1, "the name of a worker", "orchestrator workers drain WORKER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.onServer(cmd, func(ctx context.Context, cl *client) error {
				k, err := cl.workers.DrainWorker(ctx, &api.DrainWorkerRequest{Name: args[0]})
				if err != nil {
					return err
				}
				if c.asJSON {
					return c.printJSON(k)
				}
				fmt.Fprintf(c.painted(c.out), "%s %s takes nothing new; it leaves when %d attempts have ended\n", workerStatus(k), k.GetName(), k.GetBusy())
				return nil
			})
		},
	}
	c.jsonFlag(cmd, "print the worker as one JSON document")
	return cmd
}

// completeWorker lists the workers that are connected.
func (c *cli) completeWorker(_ *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(given) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return c.completing(c.reader, func(ctx context.Context, cl *client) []string {
		resp, err := cl.workers.ListWorkers(ctx, &api.ListWorkersRequest{})
		if err != nil {
			return nil
		}
		var names []string
		for _, k := range resp.GetWorkers() {
			names = append(names, k.GetName()+"\t"+strings.Join(k.GetLabels(), ", "))
		}
		return names
	})
}
