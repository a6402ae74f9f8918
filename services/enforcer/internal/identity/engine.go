package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/palisade-sec/palisade/internal/unixsock"
)

const (
	// maxAnswerBytes bounds an answer about one container or image: labels are all that is long in it.
	maxAnswerBytes = 2 << 20
	// maxImages bounds what is remembered of images.
	maxImages = 512
	// dialTime bounds one connection to the gate; the question's own deadline is shorter.
	dialTime = time.Second
)

// engine asks Docker or Podman, by Docker's API.
type engine struct {
	name   string
	client *http.Client

	mu sync.Mutex
	// images are descriptions by the image's id, which is a digest of it: it never means another one. Guarded by mu.
	images map[string]image
}

// image is what is read of an image.
type image struct {
	RepoDigests []string
	RootFS      struct{ Layers []string }
}

func newEngine(name, socket string, gate uint32) *engine {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return unixsock.Dial(ctx, socket, gate, dialTime)
		},
		DisableCompression: true, MaxIdleConns: 2, IdleConnTimeout: 30 * time.Second,
	}
	return &engine{name: name, client: &http.Client{Transport: transport}, images: map[string]image{}}
}

// listed is what is read of a container.
type listed struct {
	ID             string `json:"Id"`
	Names          []string
	Image, ImageID string
	Labels         map[string]string
}

// find takes the container from the list: while one is created Docker answers no question about it alone.
func (e *engine) find(ctx context.Context, id string) (Container, error) {
	var found []listed
	filter := url.QueryEscape(`{"id":["` + id + `"]}`)
	if err := e.read(ctx, "/containers/json?all=1&filters="+filter, &found); err != nil {
		return Container{}, err
	}
	if len(found) != 1 || found[0].ID != id {
		return Container{}, ErrUnknown
	}
	c := found[0]
	out := Container{Runtime: e.name, Image: c.Image, Labels: c.Labels}
	if len(c.Names) > 0 {
		out.Name = strings.TrimPrefix(c.Names[0], "/")
	}
	if strings.HasPrefix(out.Image, "sha256:") || out.Image == strings.TrimPrefix(c.ImageID, "sha256:") {
		out.Image = "" // its name means another image by now
	}
	if c.ImageID == "" {
		return out, nil
	}
	i, err := e.image(ctx, c.ImageID)
	if err != nil {
		return out, err
	}
	out.Digest, out.DiffIDs = i.digest(c.ImageID, out.Image), i.RootFS.Layers
	return out, nil
}

// digest is of the image's manifest in the registry that it came from under the given name, or another; of one that came from none it is the
// image's id.
func (i image) digest(id, name string) string {
	digest := "sha256:" + strings.TrimPrefix(id, "sha256:")
	for n, full := range i.RepoDigests {
		from, of, ok := strings.Cut(full, "@")
		if same := from == repository(name); ok && (same || n == 0) {
			digest = of
			if same {
				break
			}
		}
	}
	return digest
}

// image is asked for once.
func (e *engine) image(ctx context.Context, id string) (image, error) {
	e.mu.Lock()
	known, ok := e.images[id]
	e.mu.Unlock()
	if ok {
		return known, nil
	}
	var found image
	if err := e.read(ctx, "/images/"+id+"/json", &found); err != nil {
		return image{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.images) >= maxImages {
		clear(e.images)
	}
	e.images[id] = found
	return found, nil
}

// read decodes one bounded answer.
func (e *engine) read(ctx context.Context, target string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gate"+target, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask %s: %w", e.name, err)
	}
	answer, err := e.client.Do(request)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("ask %s: the gate has no window on it", e.name)
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w", e.name, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: it answers %s", e.name, answer.Status)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswerBytes)).Decode(into); err != nil {
		return fmt.Errorf("ask %s: %w", e.name, err)
	}
	return nil
}
