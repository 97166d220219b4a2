// Package torture is a test: three replicas of the server over one PostgreSQL
// carry out runs while it breaks whatever can break, and then it proves from the
// outside that nothing was lost and nothing was recorded twice:
//
//	make torture
//	make torture TORTURETIME=30m TORTUREFLAGS='-torture.seed 42'
//
// What breaks when is drawn, unless a seed is given; among all tests it is the
// same each time.
//
// Replicas are killed with SIGKILL, frozen with SIGSTOP for longer than a lease
// lasts, stopped in good order and started again; the database is restarted as
// after a crash; connections are cut, cut between a COMMIT and its answer, and
// held up in the middle of a batch, so that the database sees a client that has
// stopped between the fence and the end. The clocks of two replicas are wrong.
//
// The steps are commands that append a line to a ledger, a file that no server
// knows of, and print a token. At the end the ledger is held against what the
// API tells: every submission that was acknowledged has ended well; each run's
// events count from 1 without a gap; each step has one result, and that is the
// token of an effect in the ledger; no attempt number was used twice; effects may
// have run more than once, always with the same idempotency key, but those of
// steps that may run at most once only as often as people have said; each signal
// and decision that was acknowledged was taken once; and those who watched all
// the time, through whatever replica answered, saw the same log.
package torture
