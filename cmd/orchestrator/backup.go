package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/store"
)

// backupReport is what backup and restore print with --json.
type backupReport struct {
	File     string           `json:"file"`
	Bytes    int64            `json:"bytes"`
	MadeAt   time.Time        `json:"made_at"`
	Schema   int64            `json:"schema"`
	Tables   map[string]int64 `json:"tables"`             // rows
	Restored bool             `json:"restored,omitempty"` // into a store
}

func reportOf(file string, size int64, m *store.Manifest) backupReport {
	r := backupReport{File: file, Bytes: size, MadeAt: m.MadeAt, Schema: m.Schema, Tables: map[string]int64{}}
	for _, t := range m.Tables {
		r.Tables[t.Name] = t.Rows
	}
	return r
}

func (c *cli) printReport(r backupReport, words string) error {
	if c.asJSON {
		b, err := json.Marshal(r)
		if err == nil {
			_, err = fmt.Fprintln(c.out, string(b))
		}
		return err
	}
	fmt.Fprintf(c.painted(c.out), "%s %s: %d runs with %d records, %s\n", words, r.File, r.Tables["run"], r.Tables["step_log"], bytesText(r.Bytes))
	return nil
}

// storeFor opens the store itself, as backup and restore need it.
func (c *cli) storeFor(cmd *cobra.Command, database string) (store.Store, error) {
	if c.remote() {
		return nil, usage("leave out --server and ORCHESTRATOR_SERVER, and name a Postgres database with --database-url", "%s works on the store itself, not on a server", cmd.CommandPath())
	}
	cfg, err := c.embeddedConfig()
	if err != nil {
		return nil, err
	}
	if database != "" {
		cfg.Storage.Backend, cfg.Storage.ConnectionString = "postgres", database
	}
	return openStore(cmd.Context(), cfg, logger(c.log, cfg, false))
}

func (c *cli) progressLine(verb string) func(table string, rows int64) {
	return func(table string, rows int64) {
		if !c.asJSON {
			fmt.Fprintf(c.err, "%s %s: %d rows\n", verb, table, rows)
		}
	}
}

func (c *cli) backupCommand() *cobra.Command {
	var database string
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the whole store into one file, while servers work on it",
		Long: `Writes everything that the store holds at one moment into one file: runs with their records, logs and content, plans, pipelines, schedules, queues, approvals, and the keys that sign what workers report. Keep it as safe as the store itself. Cached results and leases are left out, and so are the workspaces of runs, which are no part of the store.

A backup of either store, SQLite or Postgres, can be restored into either.`,
		Example: `
orchestrator backup orchestrator.backup
orchestrator backup nightly.backup --database-url postgres://orchestrator@db/orchestrator --json`,
		Args: args(1, 1, "the file to write", "orchestrator backup orchestrator.backup"),
		RunE: func(cmd *cobra.Command, words []string) error {
			s, err := c.storeFor(cmd, database)
			if err != nil {
				return err
			}
			defer s.Close()
			return c.backup(cmd.Context(), s, words[0])
		},
	}
	cmd.Flags().StringVar(&database, "database-url", "", "the Postgres database, as in postgres://user@host/name; default: the embedded store")
	c.jsonFlag(cmd, "print what was written as one JSON document")
	return cmd
}

// backup writes into a file beside the one that is meant, so that no half of one
// ever has its name.
func (c *cli) backup(ctx context.Context, s store.Store, file string) (err error) {
	if _, err := os.Lstat(file); err == nil {
		return &failure{code: exitRefused, what: "there is a file " + file + " already", fix: []string{"choose another name, or remove it"}}
	}
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".part-*")
	if err != nil {
		return &failure{code: exitInvalid, what: "cannot write " + file, why: cause(err)}
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the error is known already
			_ = os.Remove(f.Name())
		}
	}()
	said, rows := "", int64(0)
	say := c.progressLine("saved")
	m, err := store.WriteBackup(ctx, s, f, func(table string, n, _ int64) {
		if said != "" && said != table {
			say(said, rows)
		}
		said, rows = table, n
	})
	if err != nil {
		return err
	}
	if said != "" {
		say(said, rows)
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Link(f.Name(), file) // refuses a name that was taken meanwhile
		if !errors.Is(err, fs.ErrExist) && err != nil {
			err = os.Rename(f.Name(), file) // a file system without links
		} else if err == nil {
			err = os.Remove(f.Name())
		}
	}
	if err != nil {
		return &failure{code: exitFailed, what: "cannot write " + file, why: cause(err)}
	}
	return c.printReport(reportOf(file, size, m), "saved to")
}

func (c *cli) restoreCommand() *cobra.Command {
	var database string
	var verify bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Fill an empty store from a backup",
		Long: `Checks every byte of a backup, and that the records of its runs are whole, then fills an empty store with it: all of it or nothing. No server may work on the store meanwhile.

Runs that were under way when the backup was made are queued, and go on from their last record when a server starts: what they had done since is done again.`,
		Example: `
orchestrator restore orchestrator.backup --verify-only
orchestrator restore orchestrator.backup
orchestrator restore nightly.backup --database-url postgres://orchestrator@db/fresh`,
		Args: args(1, 1, "the file to read", "orchestrator restore orchestrator.backup"),
		RunE: func(cmd *cobra.Command, words []string) error {
			return c.restore(cmd, words[0], database, verify)
		},
	}
	cmd.Flags().StringVar(&database, "database-url", "", "the Postgres database, as in postgres://user@host/name; default: the embedded store")
	cmd.Flags().BoolVar(&verify, "verify-only", false, "check the file and restore nothing")
	c.jsonFlag(cmd, "print what the file holds as one JSON document")
	return cmd
}

func (c *cli) restore(cmd *cobra.Command, file, database string, verify bool) error {
	ctx := cmd.Context()
	f, err := os.Open(file) //nolint:gosec // the file that the caller named
	if err != nil {
		return &failure{code: exitInvalid, what: "cannot read " + file, why: cause(err)}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return &failure{code: exitInvalid, what: "cannot read " + file, why: cause(err)}
	}
	b, err := store.OpenBackup(ctx, f, info.Size())
	if err != nil {
		return err
	}
	defer b.Close()
	if err := b.Verify(ctx, c.progressLine("checked")); err != nil {
		return err
	}
	r := reportOf(file, info.Size(), &b.Manifest)
	if verify {
		return c.printReport(r, "whole is")
	}
	s, err := c.storeFor(cmd, database)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := b.Restore(ctx, s, c.progressLine("restored")); err != nil {
		return err
	}
	r.Restored = true
	return c.printReport(r, "restored from")
}
