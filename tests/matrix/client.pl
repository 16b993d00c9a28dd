use LWP::UserAgent;
my $ua = LWP::UserAgent->new(keep_alive => 1, ssl_opts => { verify_hostname => 0, SSL_verify_mode => 0 });
for (1 .. 4) { print $ua->get("$ARGV[0]/$_")->decoded_content; select undef, undef, undef, 0.4 }
