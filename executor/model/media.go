package model

import (
	"context"
	"slices"
)

// withMedia is the request with the bytes of files that are only kept with the
// run.
func (c *call) withMedia(ctx context.Context, q *Request) (*Request, error) {
	var out *Request
	for i := range q.Messages {
		blocks, changed, err := c.loaded(ctx, q.Messages[i].Blocks)
		if err != nil {
			return nil, err
		}
		if !changed {
			continue
		}
		if out == nil {
			own := *q
			own.Messages = slices.Clone(q.Messages)
			out = &own
		}
		out.Messages[i].Blocks = blocks
	}
	if out == nil {
		return q, nil
	}
	return out, nil
}

func (c *call) loaded(ctx context.Context, blocks []Block) (_ []Block, changed bool, err error) {
	own := blocks
	change := func(i int) *Block {
		if !changed {
			own, changed = slices.Clone(blocks), true
		}
		return &own[i]
	}
	for i := range blocks {
		if m := blocks[i].Media; m != nil && len(m.Data) == 0 && m.Blob != "" && c.router.cfg.Blob != nil {
			data, err := c.router.cfg.Blob(ctx, c.sent.Run, m.Blob)
			if err != nil {
				return nil, false, err
			}
			file := *m
			file.Data = data
			change(i).Media = &file
		}
		if t := blocks[i].ToolResult; t != nil {
			content, inner, err := c.loaded(ctx, t.Content)
			if err != nil {
				return nil, false, err
			}
			if inner {
				result := *t
				result.Content = content
				change(i).ToolResult = &result
			}
		}
	}
	return own, changed, nil
}
