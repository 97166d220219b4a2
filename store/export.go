package store

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// A run's archive is one run in one file: a tar, compressed with zstd, of these
// entries in this order.
//
//	run.json            the run's row and the format of its plan
//	plan.json           the compiled plan
//	source.yaml         the text it came from
//	files/SHA/PATH      the files that travel with the plan, and uploads, by the bundle's digest
//	approvals.jsonl     what people were asked and have said
//	events/N.jsonl      the log, N counting from 000001
//	logs/N.jsonl        what the steps printed
//	blobs/SHA           the content of artifacts
//	manifest.json       the archive's format, and of each entry its size and SHA-256
//
// Times are microseconds since 1970. Event data is as pipeline.AppendData writes it.
const archiveFormat = 1

const (
	// MaxArchive is the size in bytes that a run's archive may have.
	MaxArchive = 256 << 20
	// maxUnpacked bounds the bytes of all entries, and maxEntry those of one.
	maxUnpacked = 2 << 30
	maxEntry    = 64 << 20
	maxEntries  = 100_000
	// archiveChunk is the size from which lines go to the next entry.
	archiveChunk = 1 << 20
)

type archivedRun struct {
	ID             pipeline.RunID     `json:"id"`
	Pipeline       string             `json:"pipeline"`
	Version        string             `json:"version,omitempty"`
	PlanDigest     pipeline.Digest    `json:"plan_digest"`
	PlanFormat     int                `json:"plan_format"`
	Status         pipeline.RunStatus `json:"status"`
	Reason         string             `json:"reason,omitempty"`
	Inputs         json.RawMessage    `json:"inputs,omitempty"`
	Outputs        json.RawMessage    `json:"outputs,omitempty"`
	Error          json.RawMessage    `json:"error,omitempty"`
	Labels         map[string]string  `json:"labels,omitempty"`
	Priority       int32              `json:"priority,omitempty"`
	Queue          string             `json:"queue,omitempty"`
	FairKey        string             `json:"fair_key,omitempty"`
	ConcurrencyKey string             `json:"concurrency_key,omitempty"`
	ConcurrencyMax int32              `json:"concurrency_max,omitempty"`
	CreatedAt      int64              `json:"created_at"`
	StartedAt      int64              `json:"started_at,omitempty"`
	FinishedAt     int64              `json:"finished_at,omitempty"`
	ParentRun      pipeline.RunID     `json:"parent_run,omitempty"`
	ForkedFrom     pipeline.RunID     `json:"forked_from,omitempty"`
	ForkSeq        int32              `json:"fork_seq,omitempty"`
	Usage          pipeline.Usage     `json:"usage"`
}

type archivedEvent struct {
	Seq     int32              `json:"seq"`
	Type    pipeline.EventType `json:"type"`
	Path    pipeline.Path      `json:"path,omitempty"`
	Attempt int32              `json:"attempt,omitempty"`
	At      int64              `json:"at"`
	Data    json.RawMessage    `json:"data"`
}

type archivedLog struct {
	Path    pipeline.Path `json:"path"`
	Attempt int32         `json:"attempt"`
	N       int32         `json:"n"`
	At      int64         `json:"at"`
	Stream  string        `json:"stream"`
	Text    string        `json:"text"`
}

type archivedApproval struct {
	ID        pipeline.ApprovalID     `json:"id"`
	Status    pipeline.ApprovalStatus `json:"status"`
	Request   json.RawMessage         `json:"request"`
	Decisions json.RawMessage         `json:"decisions,omitempty"`
	Deadline  int64                   `json:"deadline,omitempty"`
	CreatedAt int64                   `json:"created_at"`
	DecidedAt int64                   `json:"decided_at,omitempty"`
}

type archiveManifest struct {
	Format int            `json:"format"`
	Run    pipeline.RunID `json:"run"`
	Files  []archivedFile `json:"files"`
}

type archivedFile struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	SHA  string `json:"sha256"`
}

func archivedTime(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeArchived(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// ExportRun writes a finished run as an archive. It holds one megabyte of it at a
// time, besides the largest single value. A run that has not finished gives
// Conflict, one that is too large for an archive TooLarge.
func ExportRun(ctx context.Context, s Store, id pipeline.RunID, w io.Writer) error {
	run, err := s.Run(ctx, id)
	if err != nil {
		return err
	}
	if !run.Status.Final() {
		return &pipeline.Error{
			Kind: pipeline.Conflict, Reason: "run_active",
			Text: fmt.Sprintf("run %s has not finished: it is %s; export it when it has, or cancel it first", id, run.Status),
		}
	}
	plan, err := s.Plan(ctx, run.PlanDigest)
	if err != nil {
		return fmt.Errorf("read the plan of run %s: %w", id, err)
	}
	zw, err := zstd.NewWriter(&archiveLimit{w: w, left: MaxArchive}, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	defer func() { _ = zw.Close() }() // closing it twice does nothing
	x := &archiveWriter{tar: tar.NewWriter(zw), at: run.FinishedAt, manifest: archiveManifest{Format: archiveFormat, Run: id}}
	if err := x.export(ctx, s, run, plan); err != nil {
		return err
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}

// archiveLimit refuses to write more than an archive may have.
type archiveLimit struct {
	w    io.Writer
	left int
}

func (l *archiveLimit) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, archiveTooLarge()
	}
	return l.w.Write(p)
}

func archiveTooLarge() error {
	return &pipeline.Error{
		Kind: pipeline.TooLarge, Reason: "archive_too_large",
		Text: fmt.Sprintf("the run is larger than the %d MiB that an archive may have", MaxArchive>>20),
	}
}

// archiveWriter writes the entries of an archive.
type archiveWriter struct {
	tar      *tar.Writer
	at       time.Time
	size     int64
	manifest archiveManifest
	part     bytes.Buffer // lines of the next entry
	parts    int          // entries of these lines that are written
	blobs    map[pipeline.Digest]bool
}

func (x *archiveWriter) export(ctx context.Context, s Store, run *pipeline.Run, plan *Plan) error {
	row := archivedRun{
		ID: run.ID, Pipeline: run.Pipeline, Version: run.Version, PlanDigest: run.PlanDigest, PlanFormat: plan.Format,
		Status: run.Status, Reason: run.Reason, Inputs: EncodeMap(run.Inputs), Outputs: EncodeMap(run.Outputs), Error: EncodeFailure(run.Error),
		Labels: run.Labels, Priority: run.Priority, Queue: run.Queue, FairKey: run.FairKey,
		ConcurrencyKey: run.Concurrency.Key, ConcurrencyMax: run.Concurrency.Max,
		CreatedAt: archivedTime(run.CreatedAt), StartedAt: archivedTime(run.StartedAt), FinishedAt: archivedTime(run.FinishedAt),
		ParentRun: run.ParentRun, ForkedFrom: run.ForkedFrom, ForkSeq: run.ForkSeq, Usage: run.Usage,
	}
	row.Usage.CostUSD = Finite(row.Usage.CostUSD)
	if err := x.json("run.json", row); err != nil {
		return err
	}
	if err := x.entry("plan.json", plan.Compiled); err != nil {
		return err
	}
	if err := x.entry("source.yaml", plan.Source); err != nil {
		return err
	}
	bundle, err := BundleOf(plan.Compiled)
	if err != nil {
		return err
	}
	uploads, err := uploadsOf(ctx, s, run.ID)
	if err != nil {
		return err
	}
	for _, d := range slices.Compact([]pipeline.Digest{bundle, uploads}) {
		if err := x.files(ctx, s, d); err != nil {
			return err
		}
	}
	if err := x.approvals(ctx, s, run.ID); err != nil {
		return err
	}
	if err := x.events(ctx, s, run.ID); err != nil {
		return err
	}
	if err := x.logs(ctx, s, run.ID); err != nil {
		return err
	}
	for _, d := range slices.Sorted(maps.Keys(x.blobs)) {
		data, err := s.Blob(ctx, run.ID, d)
		if err != nil {
			return fmt.Errorf("read content %s: %w", d, err)
		}
		sha, err := BlobSHA(d)
		if err != nil {
			return err
		}
		if err := x.entry("blobs/"+hex.EncodeToString(sha[:]), data); err != nil {
			return err
		}
	}
	if err := x.json("manifest.json", x.manifest); err != nil {
		return err
	}
	if err := x.tar.Close(); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}

// uploadsOf is the digest of the files that came with a run.
func uploadsOf(ctx context.Context, s Store, id pipeline.RunID) (pipeline.Digest, error) {
	for e, err := range s.Events(ctx, id, 0) {
		if err != nil {
			return "", fmt.Errorf("read log: %w", err)
		}
		return e.Data.Uploads, nil
	}
	return "", nil
}

func (x *archiveWriter) json(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return x.entry(name, b)
}

func (x *archiveWriter) entry(name string, data []byte) error {
	x.size += int64(len(data))
	if len(data) > maxEntry || x.size > maxUnpacked || len(x.manifest.Files) >= maxEntries-1 {
		return archiveTooLarge()
	}
	err := x.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o600, ModTime: x.at, Format: tar.FormatPAX})
	if err == nil {
		_, err = x.tar.Write(data)
	}
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	sum := sha256.Sum256(data)
	x.manifest.Files = append(x.manifest.Files, archivedFile{Name: name, Size: int64(len(data)), SHA: hex.EncodeToString(sum[:])})
	return nil
}

func (x *archiveWriter) files(ctx context.Context, s Store, d pipeline.Digest) error {
	if d == "" {
		return nil
	}
	files, err := s.Bundle(ctx, d)
	if err != nil {
		return err
	}
	sha, err := BlobSHA(d)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := x.entry("files/"+hex.EncodeToString(sha[:])+"/"+name, files[name]); err != nil {
			return err
		}
	}
	return nil
}

// line adds a line to the entries of a folder.
func (x *archiveWriter) line(folder string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", folder, err)
	}
	x.part.Write(b)
	x.part.WriteByte('\n')
	if x.part.Len() < archiveChunk {
		return nil
	}
	return x.flush(folder)
}

func (x *archiveWriter) flush(folder string) error {
	if x.part.Len() == 0 {
		return nil
	}
	x.parts++
	err := x.entry(partName(folder, x.parts), x.part.Bytes())
	x.part.Reset()
	return err
}

func partName(folder string, n int) string { return fmt.Sprintf("%s/%06d.jsonl", folder, n) }

func (x *archiveWriter) events(ctx context.Context, s Store, id pipeline.RunID) error {
	x.blobs, x.parts = map[pipeline.Digest]bool{}, 0
	for e, err := range s.Events(ctx, id, 0) {
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		for i := range e.Data.Published {
			if d := e.Data.Published[i].Blob; d != "" {
				x.blobs[d] = true
			}
		}
		err := x.line("events", archivedEvent{
			Seq: e.Seq, Type: e.Type, Path: e.Path, Attempt: e.Attempt, At: archivedTime(e.At), Data: pipeline.AppendData(nil, &e.Data),
		})
		if err != nil {
			return err
		}
	}
	return x.flush("events")
}

func (x *archiveWriter) logs(ctx context.Context, s Store, id pipeline.RunID) error {
	x.parts = 0
	for c, err := range s.Logs(ctx, LogQuery{Run: id}) {
		if err != nil {
			return fmt.Errorf("read what the steps printed: %w", err)
		}
		if err := x.line("logs", archivedLog{Path: c.Path, Attempt: c.Attempt, N: c.N, At: archivedTime(c.At), Stream: c.Stream, Text: c.Text}); err != nil {
			return err
		}
	}
	return x.flush("logs")
}

func (x *archiveWriter) approvals(ctx context.Context, s Store, id pipeline.RunID) error {
	var lines bytes.Buffer
	q := ApprovalQuery{Run: id, Limit: 500}
	for {
		page, err := s.Approvals(ctx, q)
		if err != nil {
			return err
		}
		for _, a := range page.Approvals {
			request, err := EncodeRequest(a)
			if err != nil {
				return err
			}
			b, err := json.Marshal(archivedApproval{
				ID: a.ID, Status: a.Status, Request: request, Decisions: EncodeDecisions(a.Decisions),
				Deadline: archivedTime(a.Deadline), CreatedAt: archivedTime(a.CreatedAt), DecidedAt: archivedTime(a.DecidedAt),
			})
			if err != nil {
				return fmt.Errorf("write approval %s: %w", a.ID, err)
			}
			lines.Write(b)
			lines.WriteByte('\n')
			q.Before = a.ID
		}
		if !page.More || len(page.Approvals) == 0 {
			break
		}
	}
	if lines.Len() == 0 {
		return nil
	}
	return x.entry("approvals.jsonl", lines.Bytes())
}
