<?php

return ['driver' => 'array', 'lifetime' => 120, 'cookie' => 'clients', 'path' => '/', 'domain' => null, 'lottery' => [0, 100]];
