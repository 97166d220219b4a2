package server

import (
	"container/list"
	"context"
	"sync"
)

// lru caches values up to a number of bytes; each value is made once, however
// many ask for it at the same time.
type lru[K comparable, V any] struct {
	limit int64

	mu      sync.Mutex // guards what follows
	entries map[K]*list.Element
	order   list.List // of *lruEntry, newest use first
	making  map[K]*lruCall[V]
	bytes   int64
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
	bytes int64
}

type lruCall[V any] struct {
	done  chan struct{}
	value V
	err   error
}

func newLRU[K comparable, V any](limit int64) *lru[K, V] {
	return &lru[K, V]{limit: limit, entries: map[K]*list.Element{}, making: map[K]*lruCall[V]{}}
}

// get returns the value of key, or makes it. Errors are not kept. Waiting for
// another caller's making ends with ctx.
func (c *lru[K, V]) get(ctx context.Context, key K, create func() (V, int64, error)) (V, error) {
	for {
		c.mu.Lock()
		if e, ok := c.entries[key]; ok {
			c.order.MoveToFront(e)
			v := entryOf[K, V](e).value
			c.mu.Unlock()
			return v, nil
		}
		call, ok := c.making[key]
		if !ok {
			call = &lruCall[V]{done: make(chan struct{})}
			c.making[key] = call
			c.mu.Unlock()
			return c.create(key, call, create)
		}
		c.mu.Unlock()
		select {
		case <-call.done:
			if call.err == nil {
				return call.value, nil
			}
			// The maker may have failed for reasons of its own, as its caller
			// leaving: try ourselves.
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
	}
}

func (c *lru[K, V]) create(key K, call *lruCall[V], create func() (V, int64, error)) (V, error) {
	var bytes int64
	made := false
	defer func() {
		if !made {
			call.err = context.Canceled // create panicked: those who wait try themselves
		}
		c.mu.Lock()
		delete(c.making, key)
		if call.err == nil {
			c.add(key, call.value, bytes)
		}
		c.mu.Unlock()
		close(call.done)
	}()
	call.value, bytes, call.err = create()
	made = true
	return call.value, call.err
}

// add stores a value; c.mu is held.
func (c *lru[K, V]) add(key K, v V, bytes int64) {
	if bytes > c.limit {
		return
	}
	c.entries[key] = c.order.PushFront(&lruEntry[K, V]{key: key, value: v, bytes: bytes})
	c.bytes += bytes
	for c.bytes > c.limit {
		e := c.order.Back()
		old := entryOf[K, V](e)
		c.order.Remove(e)
		delete(c.entries, old.key)
		c.bytes -= old.bytes
	}
}

// size is the number of bytes held.
func (c *lru[K, V]) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

func entryOf[K comparable, V any](e *list.Element) *lruEntry[K, V] {
	entry, ok := e.Value.(*lruEntry[K, V])
	if !ok {
		panic("server: foreign element in cache")
	}
	return entry
}
