package model

import (
	"crypto/sha256"
	"encoding/hex"
)

// The providers by their names in models.yaml and under models of a pipeline.
const (
	ProviderAnthropic = "anthropic"
	ProviderOpenAI    = "openai"
	ProviderGoogle    = "google"
	ProviderLocal     = "local" // speaks as openai does, at an address of one's own
	ProviderScript    = "script"
	ProviderCassette  = "cassette"
)

// Endpoint says where a Provider is found, and how one speaks to it.
type Endpoint struct {
	Provider string // one of the names above
	BaseURL  string // empty: the service's own
	API      string // of openai and local: chat (default), responses
	Key      string // a secret; empty: none is sent
	File     string // of script and cassette: absolute
	Records  bool   // of cassette: answers are added to File, which may be missing
}

// account names the service and the key that it is asked with, to whoever counts
// for the service. The key cannot be read from it.
func (e *Endpoint) account() string {
	if e.Key == "" {
		return e.Provider + " " + e.BaseURL
	}
	sum := sha256.Sum256([]byte("account\n" + e.Provider + "\n" + e.BaseURL + "\n" + e.Key))
	return e.Provider + " " + hex.EncodeToString(sum[:8])
}
