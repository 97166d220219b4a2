package main

import (
	"context"
	"errors"
	"log/slog"
	"strconv"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/sandbox/docker"
	"github.com/orchestrator-project/orchestrator/executor/sandbox/process"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// sandboxConfig is what programs are locked in by.
type sandboxConfig struct {
	Enabled  bool          `key:"enabled" default:"true" doc:"offer the drivers; false: whatever asks for a sandbox is refused"`
	Drivers  []string      `key:"drivers" default:"process,docker" doc:"what may lock programs in, the preferred one first: process (bubblewrap, for Linux), docker, and host, which locks nothing in: only where it is named does the server run bare what is meant for a sandbox"`
	Readable []string      `key:"readable" doc:"more folders that programs in the driver process can read, as for programs in unusual places"`
	Socket   string        `key:"docker_socket" default:"/var/run/docker.sock" doc:"the socket of the Docker engine, or its address, as in tcp://10.0.0.9:2375"`
	Images   sandboxImages `key:"images"`
	Limits   sandboxLimits `key:"resource_limits"`
}

type sandboxImages struct {
	Python string `key:"python" default:"orchestrator/python:3.11-slim" doc:"the image for code in Python, and for whatever has no image of its own; scripts/sandbox-image makes it"`
	Nodejs string `key:"nodejs" default:"orchestrator/node:18-slim" doc:"the image for code in JavaScript; scripts/sandbox-image makes it"`
	Custom string `key:"custom" doc:"the image for commands and everything else that is not Python or JavaScript; default: that for python"`
}

type sandboxLimits struct {
	Memory  string `key:"memory" default:"1GiB" doc:"how much memory a program may have, where its step does not say; 0: no bound"`
	CPU     string `key:"cpu" default:"0.5" doc:"how many processors, where its step does not say; 0: no bound"`
	Pids    int    `key:"pids" default:"100" zero:"ok" doc:"how many processes and threads, where its step does not say; 0: no bound"`
	Disk    string `key:"disk" default:"1GiB" doc:"how much a program may add to its workspace; 0: no bound"`
	Network string `key:"network" default:"none" values:"none" doc:"what programs reach unless their step says network: true"`
}

// spec is the limits as they are given to drivers.
func (l sandboxLimits) spec() (sandbox.Spec, error) {
	s := sandbox.Spec{Pids: l.Pids}
	for _, amount := range []struct {
		name, text string
		to         *int64
	}{{"memory", l.Memory, &s.Memory}, {"disk", l.Disk, &s.Disk}} {
		n, ok := spec.Bytes(amount.text)
		if !ok && amount.text != "0" {
			return s, wrongLimit(amount.name, amount.text, "an amount of bytes, as in 512MB or 2GiB")
		}
		*amount.to = n
	}
	var err error
	if s.CPU, err = strconv.ParseFloat(l.CPU, 64); err != nil || !(s.CPU >= 0 && s.CPU < 1e6) {
		return s, wrongLimit("cpu", l.CPU, "a number of processors, as in 0.5")
	}
	return s, nil
}

func wrongLimit(name, text, want string) error {
	return &failure{code: exitInvalid, what: "sandbox.resource_limits." + name + " is " + strconv.Quote(text), why: "it must be " + want}
}

// sandboxes are those that the settings name. hidden is what belongs to this
// installation, which no program may see.
func sandboxes(cfg *config, log *slog.Logger, hidden ...string) (*sandbox.Set, error) {
	c := cfg.Sandbox
	limits, err := c.Limits.spec()
	if err != nil {
		return nil, err
	}
	set := &sandbox.Set{Limits: limits}
	if !c.Enabled {
		return set, nil
	}
	for _, name := range c.Drivers {
		switch name {
		case sandbox.Process:
			set.Drivers = append(set.Drivers, &process.Driver{Readable: c.Readable, Hidden: hidden})
		case sandbox.Docker:
			set.Drivers = append(set.Drivers, &docker.Driver{
				Socket: c.Socket, Images: map[string]string{"python": c.Images.Python, "nodejs": c.Images.Nodejs, "custom": c.Images.Custom}, Logger: log,
			})
		case sandbox.HostRun:
			set.Drivers = append(set.Drivers, sandbox.Host{})
		default:
			return nil, &failure{
				code: exitInvalid, what: "sandbox.drivers names " + strconv.Quote(name), why: "the drivers are process, docker and host",
			}
		}
	}
	return set, nil
}

// sandboxFindings tells of every driver what holds here, or why it does not work,
// and whether what asks for a sandbox will find one.
func sandboxFindings(ctx context.Context, cfg *config, home string) []finding {
	set, err := sandboxes(cfg, slog.New(slog.DiscardHandler), home, cfg.Storage.Path)
	if err != nil {
		f := finding{Name: "sandbox", Status: "error", Text: err.Error(), Fix: "correct the section sandbox of config.yaml"}
		if e, ok := errors.AsType[*failure](err); ok {
			f.Text = e.what + ": " + e.why
		}
		return []finding{f}
	}
	var out []finding
	works := 0
	for _, d := range set.Drivers {
		name := "sandbox " + d.Name()
		level, err := d.Probe(ctx)
		switch {
		case err != nil:
			out = append(out, finding{Name: name, Status: "ok", Text: "not here: " + err.Error()})
		case d.Name() == sandbox.HostRun:
			works++
			out = append(out, finding{
				Name: name, Status: "warning", Text: "programs that are meant for a sandbox may run bare: nothing is held",
				Fix: "take host out of sandbox.drivers unless you trust all of them",
			})
		default:
			works++
			out = append(out, finding{Name: name, Status: "ok", Text: level.String()})
		}
	}
	if works == 0 {
		out = append(out, finding{
			Name: "sandbox", Status: "warning", Text: "there is none: code, skills and whatever asks for one will not run",
			Fix: "apt-get install bubblewrap (Linux), or start a Docker engine and make its images with scripts/sandbox-image; docs/guide/sandbox.md tells more",
		})
	}
	return out
}
