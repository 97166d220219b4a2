package expr

// The limits of one evaluation. Work is counted in units, of which an operation
// has 64:
//
//   - A node of an expression that is evaluated, and a pass of a for statement,
//     is one operation.
//   - An element that a filter, method or operator visits by itself is one unit,
//     and so is a comparison that it makes: 100,000 elements cost 1,563
//     operations in map or join, and 30,000 or so in sort.
//   - Reading a text is one unit for four bytes, comparing one for 64 bytes.
//
// So lists of hundreds of thousands of elements pass through filters, while loops
// inside loops end soon. The elements and texts that an evaluation makes are
// counted as well, since they bound its memory.
const (
	maxOps      = 100_000
	unitsPerOp  = 64
	maxWork     = maxOps * unitsPerOp
	maxText     = 1 << 20  // bytes of the output, and of any text made on the way
	maxMade     = 16 << 20 // bytes of all texts made on the way
	maxElements = 1 << 20  // elements of all lists and maps made on the way

	bytesRead     = 4  // bytes that are read for a unit
	bytesCompared = 64 // bytes that are compared for a unit

	// weightOfMap is what a small list or map weighs as an element of another, in
	// elements, since it has a head of its own.
	weightOfList = 3
	weightOfMap  = 8

	tooMuchText = "the text is too long (more than 1 MiB)"
)

// spent is what an evaluation has used up.
type spent struct {
	work     int // units
	made     int // bytes of texts
	elements int
}

// tick charges one operation.
func (ev *evaluator) tick(at Span) { ev.units(unitsPerOp, at) }

// charge charges n operations.
func (ev *evaluator) charge(n int, at Span) { ev.units(min(n, maxOps+1)*unitsPerOp, at) }

// visit charges for looking at n elements.
func (ev *evaluator) visit(n int, at Span) { ev.units(n, at) }

func (ev *evaluator) units(n int, at Span) {
	if ev == nil { // Equal is no part of an evaluation
		return
	}
	if ev.work += min(n, maxWork+1); ev.work > maxWork {
		ev.work = maxWork
		fail(at, "the expression does too much work (more than 100,000 operations)")
	}
}

// scan charges for reading n bytes of text.
func (ev *evaluator) scan(n int, at Span) { ev.units(n/bytesRead, at) }

// collate charges for comparing two texts of n bytes.
func (ev *evaluator) collate(n int, at Span) { ev.units(1+n/bytesCompared, at) }

// room fails unless a text of n bytes may be made; it must be asked before.
func (ev *evaluator) room(n int, at Span) {
	if n > maxText || n < 0 {
		fail(at, "%s", tooMuchText)
	}
	if ev.made += n; ev.made > maxMade {
		fail(at, "the expression makes too much text (more than 16 MiB in all)")
	}
	ev.scan(n, at)
}

// str accounts for a text that was made, and is not much longer than its source.
func (ev *evaluator) str(s string, at Span) string {
	ev.room(len(s), at)
	return s
}

// hold fails unless n elements may be made; where their number depends on more
// than the length of a list at hand it must be asked before.
func (ev *evaluator) hold(n int, at Span) {
	ev.units(n, at)
	ev.built = true
	if ev.elements += n; ev.elements > maxElements {
		fail(at, "the expression makes too many list elements (more than 1,048,576 in all)")
	}
}

// list makes a list of n elements.
func (ev *evaluator) list(n int, at Span) []any {
	ev.hold(n, at)
	return make([]any, n)
}

// texts makes a list of texts.
func (ev *evaluator) texts(s []string, at Span) []any {
	out := ev.list(len(s), at)
	for i, x := range s {
		out[i] = x
	}
	return out
}
