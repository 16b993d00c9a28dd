<?php // every file_get_contents opens its own connection
$c = stream_context_create(["ssl" => ["verify_peer" => false, "verify_peer_name" => false]]);
for ($i = 1; $i <= 3; $i++) { echo file_get_contents("$argv[1]/$i", false, $c); usleep(400000); }
