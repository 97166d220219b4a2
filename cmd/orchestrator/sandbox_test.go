package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
)

func TestSandboxSettings(t *testing.T) {
	// The section of the documented tree, as it stands there.
	const tree = `orchestrator:
  sandbox:
    enabled: true
    docker_socket: /var/run/docker.sock
    images:
      python: orchestrator/python:3.11-slim
      nodejs: orchestrator/node:18-slim
      custom: ${CUSTOM_SANDBOX_IMAGE}
    resource_limits:
      memory: 1GB
      cpu: 0.5
      disk: 100MB
      network: none
`
	gib := sandbox.Spec{Memory: 1 << 30, CPU: 0.5, Pids: 100, Disk: 1 << 30}
	for _, c := range []struct {
		name, file string
		environ    []string
		drivers    []string
		limits     sandbox.Spec
		fails      string
	}{
		{"the defaults", "", nil, []string{"process", "docker"}, gib, ""},
		{"the documented tree", tree, []string{"CUSTOM_SANDBOX_IMAGE=x"}, []string{"process", "docker"}, sandbox.Spec{Memory: 1e9, CPU: 0.5, Pids: 100, Disk: 1e8}, ""},
		{"bare where it says so", "orchestrator: {sandbox: {drivers: [docker, host]}}", nil, []string{"docker", "host"}, gib, ""},
		{"none", "orchestrator: {sandbox: {enabled: false}}", nil, nil, gib, ""},
		{"no bounds", "orchestrator: {sandbox: {resource_limits: {memory: 0, cpu: 0, pids: 0, disk: 0}}}", nil, []string{"process", "docker"}, sandbox.Spec{}, ""},
		{"an unknown driver", "orchestrator: {sandbox: {drivers: [chroot]}}", nil, nil, gib, `sandbox.drivers names "chroot": the drivers are process, docker and host`},
		{"no amount", "orchestrator: {sandbox: {resource_limits: {memory: much}}}", nil, nil, gib, `sandbox.resource_limits.memory is "much": it must be an amount of bytes`},
		{"no number", "", []string{"ORCHESTRATOR_SANDBOX_RESOURCE_LIMITS_CPU=-1"}, nil, gib, `sandbox.resource_limits.cpu is "-1": it must be a number of processors`},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := newCLI(t, c.environ...)
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(cl.home(), "config.yaml"), []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cfg, err := cl.loadConfig()
			if err != nil {
				t.Fatal(err)
			}
			set, err := sandboxes(cfg, slog.New(slog.DiscardHandler), cl.home())
			if c.fails != "" {
				if found := sandboxFindings(t.Context(), cfg, cl.home()); err == nil || len(found) != 1 || found[0].Status != "error" || !strings.Contains(found[0].Text, c.fails) {
					t.Errorf("got %v and %+v, want %s", err, found, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, d := range set.Drivers {
				names = append(names, d.Name())
			}
			if !slices.Equal(names, c.drivers) {
				t.Errorf("drivers %q, want %q", names, c.drivers)
			}
			if l := set.Limits; l.Memory != c.limits.Memory || l.CPU != c.limits.CPU || l.Pids != c.limits.Pids || l.Disk != c.limits.Disk {
				t.Errorf("limits %+v, want %+v", l, c.limits)
			}
		})
	}
}

func TestDoctorTellsOfSandboxes(t *testing.T) {
	home := t.TempDir()
	cfg := defaultConfig()
	cfg.Sandbox.Drivers = []string{"docker"}
	cfg.Sandbox.Socket = filepath.Join(home, "no.sock")
	found := sandboxFindings(t.Context(), cfg, home)
	if len(found) != 2 || found[0].Name != "sandbox docker" || !strings.Contains(found[0].Text, "not here: no Docker engine answers") ||
		found[1].Status != "warning" || !strings.Contains(found[1].Fix, "apt-get install bubblewrap") {
		t.Errorf("found %+v", found)
	}
	cfg.Sandbox.Drivers = []string{"host"}
	if found = sandboxFindings(t.Context(), cfg, home); len(found) != 1 || found[0].Status != "warning" || !strings.Contains(found[0].Text, "nothing is held") {
		t.Errorf("found %+v", found)
	}
}
