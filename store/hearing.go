package store

// Hearing tells what Listen is worth.
type Hearing interface {
	// Deaf reports whether the bells of other processes are not heard, as behind a
	// pooler that forbids LISTEN: heartbeats tell what waits for a lane, and who needs
	// other news has to ask. It asks no database and never blocks.
	Deaf() bool
}
