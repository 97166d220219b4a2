// Package deploy_test holds the deployment files against the tree: they are
// read, not run, since the tests need no container engine.
package deploy_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

type compose struct {
	Services map[string]service        `yaml:"services"`
	Volumes  map[string]map[string]any `yaml:"volumes"`
}

type service struct {
	Image       string                                       `yaml:"image"`
	Build       struct{ Context, Dockerfile, Target string } `yaml:"build"`
	Environment map[string]string                            `yaml:"environment"`
	Ports       []string                                     `yaml:"ports"`
	Volumes     []string                                     `yaml:"volumes"`
	ReadOnly    bool                                         `yaml:"read_only"`
	DependsOn   map[string]map[string]string                 `yaml:"depends_on"`
	Healthcheck struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	if err := yaml.Unmarshal([]byte(read(t, "../docker-compose.yml")), &c); err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return c
}

// byDefault is what compose makes of ${VAR:-default} when nothing is set.
func byDefault(text string) string {
	return regexp.MustCompile(`\$\{[A-Z_]+:-([^}]*)\}`).ReplaceAllString(text, "$1")
}

func TestComposeServices(t *testing.T) {
	c := readCompose(t)
	server, postgres := c.Services["server"], c.Services["postgres"]
	if len(c.Services) != 2 || !strings.HasPrefix(postgres.Image, "postgres:17") {
		t.Fatalf("the services are %v, want server and postgres:17", c.Services)
	}
	if server.DependsOn["postgres"]["condition"] != "service_healthy" {
		t.Error("the server does not wait for a healthy postgres")
	}
	for name, s := range c.Services {
		if !s.ReadOnly {
			t.Errorf("%s: its file system can be written to; set read_only and name what needs a volume", name)
		}
		for _, p := range s.Ports {
			if !strings.HasPrefix(p, "127.0.0.1:") {
				t.Errorf("%s: port %s is published beyond this machine, and the server has no login", name, p)
			}
		}
		for _, v := range s.Volumes {
			if volume, _, _ := strings.Cut(v, ":"); c.Volumes[volume] == nil && !slices.Contains(keys(c.Volumes), volume) {
				t.Errorf("%s: volume %s is not declared", name, volume)
			}
		}
	}
	if len(postgres.Ports) > 0 {
		t.Error("postgres is published; only the server needs it")
	}
	if len(postgres.Healthcheck.Test) == 0 {
		t.Error("postgres has no healthcheck")
	}
	password := byDefault(postgres.Environment["POSTGRES_PASSWORD"])
	if url := byDefault(server.Environment["DATABASE_URL"]); !strings.Contains(url, ":"+password+"@postgres:5432/"+postgres.Environment["POSTGRES_DB"]) {
		t.Errorf("the server's DATABASE_URL %s does not fit the postgres service", url)
	}
}

func keys[V any](m map[string]V) (list []string) {
	for k := range m {
		list = append(list, k)
	}
	return list
}

func TestComposeBuildsAStageOfTheDockerfile(t *testing.T) {
	server := readCompose(t).Services["server"]
	dockerfile := read(t, "../"+server.Build.Dockerfile)
	var stages []string
	for _, m := range regexp.MustCompile(`(?m)^FROM \S+ AS (\S+)$`).FindAllStringSubmatch(dockerfile, -1) {
		stages = append(stages, m[1])
	}
	if target := byDefault(server.Build.Target); !slices.Contains(stages, target) {
		t.Errorf("target %s is none of the Dockerfile's stages %v", target, stages)
	}
}

func TestComposeSettingsExist(t *testing.T) {
	settings := read(t, "../cmd/orchestrator/config.go")
	for name := range readCompose(t).Services["server"].Environment {
		path, ours := strings.CutPrefix(name, "ORCHESTRATOR_")
		if !ours {
			continue
		}
		section, key, _ := strings.Cut(strings.ToLower(path), "_")
		for _, part := range []string{section, key} {
			if !strings.Contains(settings, "`key:\""+part+"\"") {
				t.Errorf("%s: cmd/orchestrator/config.go has no %q", name, part)
			}
		}
	}
}

func TestImages(t *testing.T) {
	dockerfile := read(t, "Dockerfile")
	stages := regexp.MustCompile(`(?m)^FROM `).Split(dockerfile, -1)
	last := stages[len(stages)-1]
	if !strings.HasPrefix(last, "scratch AS server\n") {
		t.Errorf("the last stage, which is built by default, is not the one from scratch:\n%s", last)
	}
	for _, stage := range stages[2:] {
		name, _, _ := strings.Cut(stage, "\n")
		for _, want := range []string{"USER 65532:65532\n", `ENTRYPOINT ["/usr/local/bin/orchestrator"]`, "ORCHESTRATOR_HOME=/var/lib/orchestrator", "HEALTHCHECK "} {
			if !strings.Contains(stage, want) {
				t.Errorf("stage %s lacks %q", name, want)
			}
		}
	}
	for _, want := range []string{"CGO_ENABLED=0", "-tags timetzdata", "ca-certificates.crt"} {
		if !strings.Contains(stages[1]+stages[2], want) {
			t.Errorf("the build lacks %q, without which a binary from scratch is not whole", want)
		}
	}
	gomod := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if gomod == nil || !strings.Contains(dockerfile, "ARG GO_VERSION="+gomod[1]+"\n") {
		t.Errorf("the image is not built with the Go of go.mod, %v", gomod)
	}
}
