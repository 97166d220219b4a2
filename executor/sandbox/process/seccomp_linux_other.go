//go:build linux && !amd64 && !arm64

package process

// machine is none that the filter knows: there is none here, and levels say so.
const (
	machine = 0
	foreign = 0
)

var older []refusal
