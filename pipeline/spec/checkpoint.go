package spec

// checkpoint reads when the state of a run is saved as a whole: a word, or
// {fixed: N} for every N records.
func (c *compiler) checkpoint(n *node, w where) (word string, every int) {
	if n == nil || n.kind != mapping {
		return c.oneOf(n, w, "adaptive", "fixed", "none"), 0
	}
	f := c.fields(n, inCheckpoint, w)
	v := f.get("fixed")
	if v == nil {
		c.wrong(n, w, "adaptive, fixed, none or {fixed: N}")
		return "", 0
	}
	every, _ = c.integer(v, w.in("fixed"), 1)
	return "fixed", every
}
