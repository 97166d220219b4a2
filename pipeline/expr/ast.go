package expr

// node is an expression. eval may return, beside a plain value, an Object,
// NullState or *undefined; who needs a plain value asks evaluator.val.
type node interface {
	at() Span
	eval(ev *evaluator) any
}

func (s Span) at() Span { return s }

type (
	constNode struct {
		Span
		v any
	}
	// nameNode is a name. slots are the places of the for and set names it may
	// mean, the innermost first; if none is set it is free.
	nameNode struct {
		Span
		name  string
		slots []int
	}
	attrNode struct {
		Span
		x    node
		name string
		nsp  Span // of the name
	}
	indexNode struct {
		Span
		x, i node
	}
	sliceNode struct {
		Span
		x            node
		lo, hi, step node // nil where left out
	}
	listNode struct {
		Span
		items []node
	}
	mapNode struct {
		Span
		keys, values []node
	}
	negNode struct {
		Span
		x    node
		plus bool
	}
	notNode struct {
		Span
		x node
	}
	andNode struct {
		Span
		a, b node
	}
	orNode struct {
		Span
		a, b node
	}
	binNode struct {
		Span
		op   string
		a, b node
	}
	concatNode struct {
		Span
		items []node
	}
	// compareNode is a chain: 1 < 2 < 3.
	compareNode struct {
		Span
		first node
		rest  []comparison
	}
	condNode struct {
		Span
		cond, then, els node // els is nil without else
	}
	filterNode struct {
		Span // of the name and its arguments
		x    node
		f    *filter
		args []node
		rest extra
	}
	testNode struct {
		Span
		x      node
		t      *test
		args   []node
		negate bool
	}
	methodNode struct {
		Span
		x    node
		m    *method
		args []node
		rest extra
	}
	funcNode struct {
		Span
		f    *function
		args []node
		rest extra
	}
)

type comparison struct {
	Span
	op string
	x  node
}

// extra are arguments beyond the declared parameters, where a signature takes them.
type extra struct {
	pos   []node
	names []string
	named []node
}

// stmt is a part of a template.
type stmt interface{ run(ev *evaluator) }

type (
	textStmt struct{ text string }
	outStmt  struct{ x node }
	ifStmt   struct {
		conds  []node
		bodies [][]stmt
		els    []stmt
	}
	forStmt struct {
		Span
		targets []int // slots; more than one unpacks each item
		loop    int   // slot of loop
		own     []int // slots set in the body, cleared before each pass
		over    node
		filter  node // nil without if
		body    []stmt
		els     []stmt
	}
	setStmt struct {
		Span
		targets []int
		x       node
	}
	setBlockStmt struct {
		slot int
		body []stmt
	}
)
