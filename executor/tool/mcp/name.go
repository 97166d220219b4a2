package mcp

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxName is how long the names of tools may be with every provider of models.
const maxName = 64

// Name is the name under which models call a tool of a server: mcp__SERVER__TOOL
// where that has only letters, digits, _ and - and at most 64 of them. Otherwise
// what does not fit is replaced or cut off, and eight digits of a hash of the
// whole name tell it from others; Set.Find takes both.
func Name(server, remote string) string {
	whole := pipeline.MCPName(server, remote)
	var b strings.Builder
	fits := len(whole) <= maxName
	for _, r := range whole {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			b.WriteRune(r)
		default:
			b.WriteByte('_')
			fits = false
		}
	}
	if fits {
		return whole
	}
	sum := sha256.Sum256([]byte(whole))
	mark := "_" + hex.EncodeToString(sum[:4])
	name := b.String()
	return name[:min(len(name), maxName-len(mark))] + mark
}
