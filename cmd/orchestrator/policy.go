package main

import (
	"path"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// policyOf is what the configuration allows pipelines to do; nil: everything.
func policyOf(cfg *config) (*pipeline.Policy, error) {
	allowed := cfg.Security.AllowedActions
	if len(allowed) == 0 {
		return nil, nil
	}
	for _, pattern := range allowed {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, &failure{
				code: exitInvalid, what: "cannot use security.allowed_actions", why: pattern + " is not a pattern",
				fix: []string{"name actions, as in generate or filesystem.*"},
			}
		}
	}
	return &pipeline.Policy{Actions: allowed}, nil
}
