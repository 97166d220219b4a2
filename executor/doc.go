// Package executor is the engine: it owns runs through lanes, asks each run's
// state machine what may happen next, executes steps on a worker pool, and
// group-commits what came of them. Its contracts are Action and Env; step
// kinds implement them in executor/step, one file each.
//
// Nobody outside ever sees what is not durable: an event reaches viewers, and
// a step with effects starts, only after the events it builds on are committed.
package executor
