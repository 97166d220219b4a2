package main

import (
	"errors"
	"testing"
)

func TestPolicyOfConfiguration(t *testing.T) {
	if p, err := policyOf(&config{}); p != nil || err != nil {
		t.Errorf("without a setting: %v, %v", p, err)
	}
	cfg := &config{Security: securityConfig{AllowedActions: []string{"generate", "filesystem.*"}}}
	p, err := policyOf(cfg)
	if err != nil || !p.Allows("filesystem.write") || !p.Allows("x", "generate") || p.Allows("command") || p.Allows("") {
		t.Errorf("%v, %v", p, err)
	}
	cfg.Security.AllowedActions = []string{"file[system"}
	if _, err := policyOf(cfg); err == nil {
		t.Error("a pattern that is none was taken")
	} else if f, ok := errors.AsType[*failure](err); !ok || f.code != exitInvalid {
		t.Errorf("%v", err)
	}
}
