package trigger

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Tolerance is how far the timestamp of a webhook may be from the present, either way.
const Tolerance = 5 * time.Minute

// Delivery is a request whose signature is good.
type Delivery struct {
	ID string // by the sender's own count; for people
	// Key is equal for a request and its repetitions, and cannot be changed without
	// breaking the signature.
	Key string
}

// The headers of Standard Webhooks and of GitHub.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
	headerHub       = "X-Hub-Signature-256"
	headerHubID     = "X-Github-Delivery"
)

// maxDeliveryID bounds the id of a delivery, in bytes.
const maxDeliveryID = 128

// Verify checks the signature of a webhook's request. The error says what is wrong
// with it, in words for the sender, and nothing of the secret.
func Verify(scheme, secret string, h http.Header, body []byte, now time.Time) (Delivery, error) {
	if secret == "" {
		return Delivery{}, errors.New("the webhook has no secret")
	}
	if scheme == pipeline.SchemeGitHub {
		return verifyGitHub(secret, h, body)
	}
	return verifyStandard(secret, h, body, now)
}

// verifyStandard follows https://www.standardwebhooks.com: the signature is over
// id.timestamp.body, and the header holds one or more, each "v1," and base64.
func verifyStandard(secret string, h http.Header, body []byte, now time.Time) (Delivery, error) {
	id, at := h.Get(headerID), h.Get(headerTimestamp)
	if err := deliveryID(headerID, id); err != nil {
		return Delivery{}, err
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return Delivery{}, fmt.Errorf("the header %s must be seconds since 1970", strings.ToLower(headerTimestamp))
	}
	switch age := now.Sub(time.Unix(seconds, 0)); {
	case age > Tolerance:
		return Delivery{}, fmt.Errorf("the timestamp is more than %s old", Tolerance)
	case age < -Tolerance:
		return Delivery{}, fmt.Errorf("the timestamp is more than %s ahead", Tolerance)
	}
	key, err := standardKey(secret)
	if err != nil {
		return Delivery{}, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	want := mac.Sum(nil)
	good := false
	for part := range strings.FieldsSeq(h.Get(headerSignature)) {
		version, text, _ := strings.Cut(part, ",")
		got, err := base64.StdEncoding.DecodeString(text)
		if version == "v1" && err == nil && hmac.Equal(got, want) {
			good = true
		}
	}
	if !good {
		return Delivery{}, fmt.Errorf("no signature in the header %s is that of the body", strings.ToLower(headerSignature))
	}
	return Delivery{ID: id, Key: id}, nil
}

// standardKey is the key of a secret: behind whsec_ stands base64; any other text is
// the key itself.
func standardKey(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, "whsec_")
	if !ok {
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) == 0 {
		return nil, errors.New("the webhook's secret is not what whsec_ promises")
	}
	return key, nil
}

// verifyGitHub checks what GitHub sends. Its signature is over the body alone, with
// neither time nor id, so the signature itself is what tells deliveries apart.
func verifyGitHub(secret string, h http.Header, body []byte) (Delivery, error) {
	id := h.Get(headerHubID)
	if err := deliveryID(headerHubID, id); err != nil {
		return Delivery{}, err
	}
	text, ok := strings.CutPrefix(h.Get(headerHub), "sha256=")
	got, err := hex.DecodeString(text)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	if want := mac.Sum(nil); !ok || err != nil || !hmac.Equal(got, want) {
		return Delivery{}, fmt.Errorf("the signature in the header %s is not that of the body", headerHub)
	}
	return Delivery{ID: id, Key: hex.EncodeToString(got)}, nil
}

func deliveryID(header, id string) error {
	if id == "" || len(id) > maxDeliveryID {
		return fmt.Errorf("the header %s must hold an id of at most %d bytes", strings.ToLower(header), maxDeliveryID)
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' || id[i] == '.' {
			return fmt.Errorf("the header %s must hold letters, digits and signs without blanks and dots", strings.ToLower(header))
		}
	}
	return nil
}
