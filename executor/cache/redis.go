package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	redisTimeout = 500 * time.Millisecond // of one command: a slow cache is worse than none
	redisLargest = 16 << 20               // bytes of a value, before compression
	redisPrefix  = "orchestrator:cache:"
	// A value is written as it is, or, from this size on, as zstd. The first byte tells.
	compressFrom      = 1 << 10
	plainValue   byte = 'p'
	zstdValue    byte = 'z'
)

// Redis is a layer that all processes share which name the same server. It must
// be closed.
type Redis struct {
	client   *redis.Client
	compress bool
	encoder  *zstd.Encoder
	decoder  *zstd.Decoder
}

var _ pipeline.ResultCache = (*Redis)(nil)

// OpenRedis connects, when it is first needed, to the server of a URL such as
// redis://user:password@host:6379/0. With compress, values from 1 KiB on are
// written as zstd; those that are read may be either.
func OpenRedis(url string, compress bool) (*Redis, error) {
	opt, err := redis.ParseURL(url)
	if err != nil {
		// The error of ParseURL may quote the password.
		return nil, errors.New("cache: the address of Redis must read like redis://host:6379/0")
	}
	opt.DialTimeout, opt.ReadTimeout, opt.WriteTimeout = redisTimeout, redisTimeout, redisTimeout
	opt.MaxRetries, opt.DialerRetries = -1, 1 // the next layer is faster
	redis.SetLogger(&logging.VoidLogger{})    // every failure comes back as an error, too
	r := &Redis{client: redis.NewClient(opt), compress: compress}
	if r.encoder, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	if r.decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(redisLargest)); err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	return r, nil
}

// Layer is the server as a layer.
func (r *Redis) Layer() Layer { return Layer{Name: "redis", Cache: r} }

// Ping asks whether the server answers.
func (r *Redis) Ping(ctx context.Context) error { return r.client.Ping(ctx).Err() }

// Close ends the connections.
func (r *Redis) Close() error {
	r.decoder.Close()
	return r.client.Close()
}

// Cached implements pipeline.ResultCache. A value that cannot be read counts as none.
func (r *Redis) Cached(ctx context.Context, key pipeline.Digest) (value []byte, left time.Duration, err error) {
	pipe := r.client.Pipeline()
	get, ttl := pipe.Get(ctx, redisPrefix+string(key)), pipe.PTTL(ctx, redisPrefix+string(key))
	_, err = pipe.Exec(ctx)
	if errors.Is(err, redis.Nil) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	raw, err := get.Bytes()
	if err != nil || len(raw) == 0 {
		return nil, 0, err
	}
	switch raw[0] {
	case plainValue:
		value = raw[1:]
	case zstdValue:
		if value, err = r.decoder.DecodeAll(raw[1:], nil); err != nil {
			return nil, 0, nil //nolint:nilerr // damaged: as good as gone
		}
	}
	return value, ttl.Val(), nil
}

// PutCached implements pipeline.ResultCache.
func (r *Redis) PutCached(ctx context.Context, key pipeline.Digest, value []byte, ttl time.Duration) error {
	if len(value) > redisLargest {
		return nil
	}
	raw := []byte{plainValue}
	if r.compress && len(value) >= compressFrom {
		raw = r.encoder.EncodeAll(value, []byte{zstdValue})
	} else {
		raw = append(raw, value...)
	}
	if ttl < time.Millisecond { // Redis knows nothing shorter
		return r.client.Del(ctx, redisPrefix+string(key)).Err()
	}
	return r.client.Set(ctx, redisPrefix+string(key), raw, ttl).Err()
}
