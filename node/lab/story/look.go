package story

import (
	"context"
	"fmt"
)

// pages are the addresses of the web pages on every master.
func (s *Story) pages() []string {
	var urls []string
	for _, m := range s.cluster.Masters() {
		for _, port := range []int{5050, 8080, 8500} {
			urls = append(urls, fmt.Sprintf("http://%s:%d/ui/", m.Address, port))
		}
	}
	return urls
}

// PagesAnswer looks whether every page that howToLook names is there.
func (s *Story) PagesAnswer(ctx context.Context) error {
	for _, url := range s.pages() {
		if err := reachable(ctx, url); err != nil {
			return err
		}
	}
	return nil
}

// howToLook ends the story with what the reader can do next.
func (s *Story) howToLook() {
	s.out.heading("The lab stays up. Look around")
	s.out.line("pages     %s (or :8080, :8500, on any master)", s.pages()[0])
	for _, env := range []string{envTest, envProd} {
		host := "app-" + env
		s.out.line("app       curl --resolve %s:80:%s http://%s/", host, s.cluster.VIP, host)
		s.out.line("          curl -H 'Host: %s' http://%s/", host, s.cluster.VIP)
	}
	s.out.line("commands  bin/appliance status | ps | events | why %s --env %s", appName, envTest)
	s.out.line("          bin/appliance scale %s --env %s 4", appName, envTest)
	s.out.line("          bin/appliance lab exec ms1 sh")
	s.out.line("faults    bin/appliance lab kill mm1; bin/appliance lab poweroff ms2; bin/appliance lab start ms2")
	s.out.line("remove    make demo-down")
}
