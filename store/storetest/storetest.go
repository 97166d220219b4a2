// Package storetest proves that both stores keep the contract of package
// store, and opens stores for everyone else's tests.
//
//	func TestSomething(t *testing.T) {
//		s := storetest.Open(t) // a fresh SQLite store
//		...
//	}
//
// Postgres gives the address of an empty database on a real server, which is
// started once and shared by all test processes; Migrated one with the schema.
package storetest

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/sqlite"
)

// Open gives a fresh SQLite store that is closed at the end of the test.
func Open(t testing.TB) store.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), sqlite.Config{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatalf("open a store: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// Harness opens the stores of one implementation for Run. Its functions
// register with t whatever must be closed.
type Harness struct {
	Open  func(t testing.TB) store.Store                // fresh and empty
	Again func(t testing.TB, s store.Store) store.Store // the data of s, as another process opens it
	Kill  func(t testing.TB, s store.Store)             // ends s as kill -9 of its process does
}

// Run is the conformance suite.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		f    func(*testing.T, Harness)
	}{
		{"a created run reads back whole", createAndRead},
		{"runs list newest first by keyset and filters", listRuns},
		{"events stay in order and without gaps", eventsInOrder},
		{"the events of one step are read alone", stepEvents},
		{"bodies of any size and character read back", bodies},
		{"text cannot break a batch", hostileText},
		{"finish updates the run", finishes},
		{"the row knows the newest snapshot", checkpoints},
		{"replicas tell each other where they are", peers},
		{"statistics of models add up", modelStats},
		{"what is only live reaches those who look", shownPieces},
		{"an idempotency key makes one run", idempotency},
		{"crossed idempotency keys do not deadlock", crossedKeys},
		{"a batch in doubt is recorded once", inDoubt},
		{"a record cannot be overwritten", overwrite},
		{"claims go by priority, then age", claimOrder},
		{"claims are fair over keys", fairOverKeys},
		{"a key cannot hoard", noHoarding},
		{"queues take turns by their weights", queuesTakeTurns},
		{"priorities go first", prioritiesGoFirst},
		{"a concurrency key holds", concurrencyKeys},
		{"a slot outlives the owner of its run", slotsOutliveOwners},
		{"runs without a slot stand aside", heldRunsStandAside},
		{"a rate limits starts", rateLimits},
		{"a queue limits what runs", runningLimits},
		{"a paused queue starts nothing", pausedQueues},
		{"a paused pipeline starts nothing", pausedPipelines},
		{"queues and runs show where they stand", queueFigures},
		{"each queued run is claimed once", claimOnce},
		{"one queued run can be claimed by name", claimRun},
		{"an old epoch never writes again", fenced},
		{"reclaim spares the living", reclaimSparesLiving},
		{"release queues the runs at once", release},
		{"yield gives runs back", yields},
		{"concurrent lanes do not disturb each other", concurrentLanes},
		{"heartbeat sees the queue", heartbeat},
		{"a message with a key is left once", keyedMessages},
		{"a parked run has no lane", parks},
		{"a parked run is claimed when its time has come", parkedTimers},
		{"parked runs stand in line with the queue", duesStandInLine},
		{"a message wakes a parked run", parkedMessages},
		{"parking in doubt leaves the next owner alone", parkInDoubt},
		{"the end of a lane leaves parked runs parked", waitersOfTheDead},
		{"parking and sending at once wakes the run", parkAgainstSend},
		{"no wake-up is lost between lanes and senders", func(t *testing.T, h Harness) {
			s := h.Open(t)
			NoLostWakeUp(t, s, h.Again(t, s))
		}},
		{"children are created with their parent's records", children},
		{"paused runs wait for a resume or a cancel", pausedRuns},
		{"an archive carries a run to another store", runArchives},
		{"runs know their parent and what they were forked from", relatives},
		{"approvals read back whole", approvalsReadBack},
		{"approvals list newest first by keyset and filters", listApprovals},
		{"approvals are asked and withdrawn once", asksOnce},
		{"a decision settles an approval and wakes its run", decides},
		{"one of several decisions wins", oneDecisionWins},
		{"the end of a run withdraws its approvals", finishWithdraws},
		{"approvals ring", approvalBells},
		{"bundles are content", bundles},
		{"blobs are content of their run", blobs},
		{"cached values expire", caches},
		{"racing makers of a key get one key", keys},
		{"budgets change one after the other", budgets},
		{"what budgets are spent on", budgetRows},
		{"rates are kept together", sharedRates},
		{"schedules read back whole", schedules},
		{"a fire is decided once, whoever dies", firesOnce},
		{"a due schedule is taken once", takenOnce},
		{"a backfill repeats nothing", backfills},
		{"fires are forgotten", firesAreForgotten},
		{"old days go, and what keeps them is told", sweeps},
		{"a sweep leaves writers alone", sweepsWithWriters},
		{"a sweep keeps what is about to be named", keepsContent},
		{"a restored store tells what it told and goes on", backups},
		{"a damaged backup is refused", damagedBackups},
		{"a backup is one moment", backupsWithWriters},
		{"plans are content", plans},
		{"pipelines have versions", pipelines},
		{"messages reach a run until it has finished", messages},
		{"logs keep their order and resume", logs},
		{"bells arrive here and in other processes", bells},
		{"a closed context stops the store", cancelled},
		{"random batches and resends equal a model", model},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.f(t, h)
		})
	}
}
