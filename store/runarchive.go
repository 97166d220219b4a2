package store

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// LabelImported marks runs that came from an archive.
const LabelImported = "imported"

// Bounds of what a foreign archive may say.
const (
	maxArchivedText   = 4096 // bytes of a path, a name or a label
	maxArchivedLabels = 64
)

// RunArchive is the archive of a run that has been read through and found whole.
type RunArchive struct {
	Run       *pipeline.Run
	Plan      Plan
	Bundle    pipeline.Digest                     // of the plan's files
	Uploads   pipeline.Digest                     // of the files that came with the run
	Files     map[pipeline.Digest]pipeline.Bundle // both
	Approvals []*pipeline.Approval
	Events    int32

	source io.ReadSeeker
}

// badArchive is the error of an archive that is refused.
func badArchive(format string, args ...any) error {
	return &pipeline.Error{Kind: pipeline.Invalid, Reason: "archive_invalid", Text: "the archive is not whole: " + fmt.Sprintf(format, args...)}
}

// OpenRunArchive reads an archive through and stores nothing. Whatever is wrong with
// it, as far as can be told without its plan, gives Invalid. Source is read again
// by the archive's methods and must stay as it is. Now bounds the age of its run.
func OpenRunArchive(source io.ReadSeeker, now time.Time) (*RunArchive, error) {
	a := &RunArchive{Files: map[pipeline.Digest]pipeline.Bundle{}, source: source}
	c := &archiveCheck{a: a, now: now, blobs: map[pipeline.Digest]bool{}}
	if err := a.entries(c.entry); err != nil {
		return nil, err
	}
	if err := c.whole(); err != nil {
		return nil, err
	}
	return a, nil
}

// entries reads the archive from its beginning. Data must not be kept.
func (a *RunArchive) entries(f func(name string, data []byte) error) error {
	if _, err := a.source.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	zr, err := zstd.NewReader(io.LimitReader(a.source, MaxArchive), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return badArchive("%v", err)
	}
	defer zr.Close()
	tr := tar.NewReader(zr)
	left := int64(maxUnpacked)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return badArchive("it cannot be unpacked (%v)", err)
		}
		if h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) || len(h.Name) > maxArchivedText || strings.ContainsAny(h.Name, "\\\x00") {
			return badArchive("%.80q is not the name of a file in it", h.Name)
		}
		if left -= h.Size; h.Size > maxEntry || left < 0 || n >= maxEntries {
			return badArchive("it is too large at %.80q", h.Name)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return badArchive("it cannot be unpacked at %.80q (%v)", h.Name, err)
		}
		if err := f(h.Name, data); err != nil {
			return err
		}
	}
}

// archiveCheck is the reading of an archive.
type archiveCheck struct {
	a        *RunArchive
	now      time.Time
	stage    int // of the newest entry
	part     int
	seen     []archivedFile
	view     *pipeline.View
	ended    bool
	asked    map[pipeline.ApprovalID]bool
	blobs    map[pipeline.Digest]bool // that the log names; true: it is there
	manifest *archiveManifest
}

// The order of entries.
const (
	stageRun = iota + 1
	stagePlan
	stageSource
	stageFiles
	stageApprovals
	stageEvents
	stageLogs
	stageBlobs
	stageManifest
)

func stageOf(name string) int {
	switch name {
	case "run.json":
		return stageRun
	case "plan.json":
		return stagePlan
	case "source.yaml":
		return stageSource
	case "approvals.jsonl":
		return stageApprovals
	case "manifest.json":
		return stageManifest
	}
	folder, _, _ := strings.Cut(name, "/")
	return map[string]int{"files": stageFiles, "events": stageEvents, "logs": stageLogs, "blobs": stageBlobs}[folder]
}

func (c *archiveCheck) entry(name string, data []byte) error {
	stage := stageOf(name)
	many := stage == stageFiles || stage == stageEvents || stage == stageLogs || stage == stageBlobs
	switch {
	case stage == 0:
		return badArchive("%.80q does not belong in it", name)
	case stage < c.stage || stage == c.stage && !many || stage > stageSource && c.stage < stageSource || stage <= stageSource && stage != c.stage+1:
		return badArchive("%.80q stands in the wrong place", name)
	}
	if stage != c.stage {
		c.part = 0
	}
	c.part++
	c.stage = stage
	if (stage == stageEvents || stage == stageLogs) && name != partName(path.Dir(name), c.part) {
		return badArchive("%.80q is not the next part", name)
	}
	if stage != stageManifest {
		sum := sha256.Sum256(data)
		c.seen = append(c.seen, archivedFile{Name: name, Size: int64(len(data)), SHA: hex.EncodeToString(sum[:])})
	}
	switch stage {
	case stageRun:
		return c.run(data)
	case stagePlan:
		c.a.Plan.Compiled = data
		var err error
		if sum := sha256.Sum256(data); BlobDigest(sum) != c.a.Plan.Digest {
			return badArchive("the plan is not the one of the run")
		}
		if c.a.Bundle, err = BundleOf(data); err != nil {
			return badArchive("the plan cannot be read")
		}
	case stageSource:
		c.a.Plan.Source = data
	case stageFiles:
		return c.file(name, data)
	case stageApprovals:
		return lines(data, c.approval)
	case stageEvents:
		return lines(data, c.event)
	case stageLogs:
		return lines(data, func(b []byte) error {
			_, err := c.a.chunk(b)
			return err
		})
	case stageBlobs:
		d := BlobDigest(sha256.Sum256(data))
		there, named := c.blobs[d]
		if !named || there || name != "blobs/"+strings.TrimPrefix(string(d), "sha256:") || CheckBlob(data) != nil {
			return badArchive("%.80q is not content that the run has published", name)
		}
		c.blobs[d] = true
	case stageManifest:
		c.manifest = &archiveManifest{}
		if err := strictJSON(data, c.manifest); err != nil {
			return badArchive("its manifest cannot be read")
		}
	}
	return nil
}

// lines calls f for each line of a file that ends with a line's end.
func lines(data []byte, f func([]byte) error) error {
	for len(data) > 0 {
		line, rest, ok := bytes.Cut(data, []byte{'\n'})
		if !ok {
			return badArchive("a line is cut off")
		}
		if err := f(line); err != nil {
			return err
		}
		data = rest
	}
	return nil
}

func strictJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// run reads the run's row.
func (c *archiveCheck) run(data []byte) error {
	var r archivedRun
	if err := strictJSON(data, &r); err != nil {
		return badArchive("the run cannot be read: %v", err)
	}
	id, ok := pipeline.ParseRunID(string(r.ID))
	first := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	if !ok || id != r.ID || id.Time().Before(first) || id.Time().After(c.now.Add(24*time.Hour)) {
		return badArchive("%.80q is not the id of a run of our time", string(r.ID))
	}
	if !r.Status.Final() {
		return badArchive("its run has not finished")
	}
	for _, id := range []pipeline.RunID{r.ParentRun, r.ForkedFrom} {
		if _, ok := pipeline.ParseRunID(string(id)); id != "" && !ok {
			return badArchive("%.80q is not the id of a run", string(id))
		}
	}
	if len(r.Labels) > maxArchivedLabels {
		return badArchive("the run has more than %d labels", maxArchivedLabels)
	}
	texts := []string{r.Pipeline, r.Version, r.Reason, r.Queue, r.FairKey, r.ConcurrencyKey}
	for k, v := range r.Labels {
		texts = append(texts, k, v)
	}
	if slices.ContainsFunc(texts, func(s string) bool { return len(s) > maxArchivedText }) || r.Pipeline == "" {
		return badArchive("a name of the run is too long, or its pipeline has none")
	}
	inputs, err := DecodeMap(r.Inputs)
	if err == nil && inputs == nil {
		inputs = map[string]any{}
	}
	var outputs map[string]any
	if err == nil {
		outputs, err = DecodeMap(r.Outputs)
	}
	var failed *pipeline.Failure
	if err == nil {
		failed, err = DecodeFailure(r.Error)
	}
	if err != nil {
		return badArchive("the run cannot be read: %v", err)
	}
	labels := maps.Clone(r.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelImported] = "true"
	c.a.Run = &pipeline.Run{
		ID: id, Pipeline: r.Pipeline, Version: r.Version, PlanDigest: r.PlanDigest, Status: r.Status, Reason: r.Reason,
		Inputs: inputs, Outputs: outputs, Error: failed, Labels: labels, Priority: r.Priority, Queue: r.Queue, FairKey: r.FairKey,
		Concurrency: pipeline.Concurrency{Key: r.ConcurrencyKey, Max: r.ConcurrencyMax},
		CreatedAt:   timeArchived(r.CreatedAt), StartedAt: timeArchived(r.StartedAt), FinishedAt: timeArchived(r.FinishedAt),
		ParentRun: r.ParentRun, ForkedFrom: r.ForkedFrom, ForkSeq: r.ForkSeq, Usage: r.Usage,
	}
	c.a.Plan.Digest, c.a.Plan.Format = r.PlanDigest, r.PlanFormat
	c.view = pipeline.NewView(*c.a.Run)
	return nil
}

func (c *archiveCheck) file(name string, data []byte) error {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 3 {
		return badArchive("%.80q does not belong in it", name)
	}
	d := pipeline.Digest("sha256:" + parts[1])
	b := c.a.Files[d]
	if b == nil {
		if len(c.a.Files) == 2 {
			return badArchive("it has files of more than a plan and a run")
		}
		b = pipeline.Bundle{}
		c.a.Files[d] = b
	}
	if _, twice := b[parts[2]]; twice || b.Size()+int64(len(data)) > MaxBundle {
		return badArchive("%.80q is there twice, or too large", name)
	}
	b[parts[2]] = data
	return nil
}

func (c *archiveCheck) approval(line []byte) error {
	var r archivedApproval
	if err := strictJSON(line, &r); err != nil {
		return badArchive("an approval cannot be read: %v", err)
	}
	a := &pipeline.Approval{
		ID: r.ID, Run: c.a.Run.ID, Pipeline: c.a.Run.Pipeline, Status: r.Status,
		Deadline: timeArchived(r.Deadline), CreatedAt: timeArchived(r.CreatedAt), DecidedAt: timeArchived(r.DecidedAt),
	}
	key, err := ApprovalKey(r.ID)
	if err != nil || ApprovalIDOf(key) != r.ID || c.asked[r.ID] {
		return badArchive("%.80q is not the id of an approval, or it is there twice", string(r.ID))
	}
	switch r.Status {
	case pipeline.ApprovalDecided, pipeline.ApprovalExpired, pipeline.ApprovalWithdrawn:
	default:
		return badArchive("approval %s is not settled", r.ID)
	}
	if err := DecodeRequest(a, r.Request); err != nil {
		return badArchive("approval %s cannot be read", r.ID)
	}
	if a.Decisions, err = DecodeDecisions(r.Decisions); err != nil {
		return badArchive("approval %s cannot be read", r.ID)
	}
	for i := range a.Decisions {
		if a.Decisions[i].Approval != "" && a.Decisions[i].Approval != r.ID {
			return badArchive("a decision of approval %s is another's", r.ID)
		}
	}
	if c.asked == nil {
		c.asked = map[pipeline.ApprovalID]bool{}
	}
	c.asked[r.ID] = true
	c.a.Approvals = append(c.a.Approvals, a)
	return nil
}

var eventTypes = []pipeline.EventType{
	pipeline.RunCreated, pipeline.RunStarted, pipeline.RunResumed, pipeline.RunIsWaiting, pipeline.RunIsPaused, pipeline.RunFinished,
	pipeline.StepStarted, pipeline.StepRetrying, pipeline.StepIsWaiting, pipeline.StepFinished, pipeline.StepWasSkipped, pipeline.StateSet,
	pipeline.AutoResolved, pipeline.ApprovalIsDecided, pipeline.SignalReceived, pipeline.Checkpoint, pipeline.WorkspaceLost,
}

// event checks one record against those before it.
func (c *archiveCheck) event(line []byte) error {
	e, err := readEvent(line)
	if err != nil {
		return err
	}
	first, last := e.Type == pipeline.RunCreated, e.Type == pipeline.RunFinished
	switch {
	case e.Seq != c.a.Events+1:
		return badArchive("record %d of its log follows record %d", e.Seq, c.a.Events)
	case first != (e.Seq == 1) || c.ended:
		return badArchive("record %d of its log, %s, stands in the wrong place", e.Seq, e.Type)
	case first:
		c.a.Uploads = e.Data.Uploads
	case last:
		c.ended = true
	}
	c.a.Events = e.Seq
	for i := range e.Data.Published {
		if d := e.Data.Published[i].Blob; d != "" {
			if _, known := c.blobs[d]; !known {
				c.blobs[d] = false
			}
		}
	}
	c.view.Apply(e)
	if e.Seq%importBatch == 0 {
		c.view.Prune()
	}
	return nil
}

// readEvent reads a line of the log.
func readEvent(line []byte) (*pipeline.Event, error) {
	var r archivedEvent
	if err := strictJSON(line, &r); err != nil {
		return nil, badArchive("a record of its log cannot be read: %v", err)
	}
	if !slices.Contains(eventTypes, r.Type) {
		return nil, badArchive("record %d of its log has the unknown type %.80q", r.Seq, string(r.Type))
	}
	if len(r.Path) > maxArchivedText || !utf8.ValidString(string(r.Path)) || r.Attempt < 0 || r.At < 0 || r.At > math.MaxInt64/2000 {
		return nil, badArchive("record %d of its log is not possible", r.Seq)
	}
	data, err := pipeline.DecodeData(r.Data)
	if err != nil {
		return nil, badArchive("record %d of its log cannot be read: %v", r.Seq, err)
	}
	return &pipeline.Event{Seq: r.Seq, Type: r.Type, Path: r.Path, Attempt: r.Attempt, At: timeArchived(r.At), Data: data}, nil
}

// chunk reads a line of what steps printed.
func (a *RunArchive) chunk(line []byte) (*LogChunk, error) {
	var r archivedLog
	if err := strictJSON(line, &r); err != nil {
		return nil, badArchive("what a step printed cannot be read: %v", err)
	}
	if r.Stream != "stdout" && r.Stream != "stderr" && r.Stream != "system" || len(r.Path) > maxArchivedText || r.Attempt < 0 || r.N < 0 {
		return nil, badArchive("what a step printed is not possible")
	}
	return &LogChunk{Run: a.Run.ID, Path: r.Path, Attempt: r.Attempt, N: r.N, At: timeArchived(r.At), Stream: r.Stream, Text: r.Text}, nil
}

// whole checks what only the end of the archive tells.
func (c *archiveCheck) whole() error {
	m := c.manifest
	switch {
	case m == nil:
		return badArchive("its end is missing")
	case m.Format != archiveFormat:
		return badArchive("its format is %d; this version reads %d", m.Format, archiveFormat)
	case m.Run != c.a.Run.ID || !slices.Equal(m.Files, c.seen):
		return badArchive("its files are not those that its manifest names")
	case !c.ended || c.view.Run.Status != c.a.Run.Status:
		return badArchive("its log does not end as the run did")
	}
	for d, there := range c.blobs {
		if !there {
			return badArchive("the content %.80q is missing", string(d))
		}
	}
	want := map[pipeline.Digest]bool{c.a.Bundle: true, c.a.Uploads: true}
	delete(want, "")
	for d, files := range c.a.Files {
		if !want[d] || files.Digest() != d {
			return badArchive("its files do not have the digest %.80q", string(d))
		}
	}
	if len(c.a.Files) != len(want) {
		return badArchive("files of the pipeline or the run are missing")
	}
	return nil
}

// EachEvent calls f for the records of the log, in order.
func (a *RunArchive) EachEvent(f func(*pipeline.Event) error) error {
	return a.entries(func(name string, data []byte) error {
		if stageOf(name) != stageEvents {
			return nil
		}
		return lines(data, func(line []byte) error {
			e, err := readEvent(line)
			if err != nil {
				return err
			}
			return f(e)
		})
	})
}
